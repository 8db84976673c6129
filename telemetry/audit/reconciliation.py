"""The account of every accepted event: what became of each number, and whether two stories about it agree.

Invariant: of every (producer, epoch) each number from 1 to the highest that is known gets exactly one state, so
accepted = archived + in flight + deduplicated + dead-lettered + erased + missing holds by construction. A number is
archived because a line with it was read or was removed by retention, not because it was counted; what the
catalogue counted is then compared with what was found, and every difference is a breach.

Pure: it is handed lines and rows, and opens nothing. Memory grows with the holes, not with the events.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, Literal, NamedTuple, TypeAlias

from telemetry.archive.retention import RetiredRun
from telemetry.audit.event_outline import Gap, Line
from telemetry.catalogue.commit import Progress, RemovedRun

State: TypeAlias = Literal["archived", "in_flight", "deduplicated", "dead_lettered", "erased", "missing"]
Key: TypeAlias = tuple[str, int]
STATES: Final[tuple[State, ...]] = ("archived", "in_flight", "deduplicated", "dead_lettered", "erased", "missing")
# What the catalogue lists of the numbers that are not lines.
_LISTED: Final[tuple[State, ...]] = ("deduplicated", "dead_lettered", "erased", "missing")
_DAMAGE: Final = "damage"

NOT_IN_FILES: Final = "neither in the files nor among the removed"
NOT_IN_SPOOL: Final = "neither archived nor in the spool"
NEVER_CAME: Final = "never came to the consumer"


class Hole(NamedTuple):
    """A run of missing numbers."""

    first_seq: int
    last_seq: int
    why: str


class _Run(NamedTuple):
    """Numbers in one state; `inside` says whether they belong to what is asked about, None if that is not known."""

    first_seq: int
    last_seq: int
    state: State
    inside: bool | None
    why: str = ""

    @property
    def size(self) -> int:
        return self.last_seq - self.first_seq + 1


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the events of one (producer, epoch), as far as they are asked about.

    Attributes:
        producer: Whose events.
        epoch: Which of its epochs.
        last_seq: The highest number that is known.
        watermark: The highest number that the archive has dealt with.
        counts: By state.
        doubles: Lines too many, one sentence each or for a run of them.
        duplicated: How many lines that is.
        refused: Feedback events that were answered 503.
        dropped: Served events that nobody recorded.
        holes: Which numbers are missing.
        gaps: What gap records tell, summed up by class and reason.
        breaches: What does not agree, one sentence each, whether or not it is asked about.
        retired: How many of the archived were removed by retention since.
    """

    producer: str
    epoch: int
    last_seq: int
    watermark: int
    counts: Mapping[State, int]
    doubles: tuple[str, ...]
    duplicated: int
    refused: int
    dropped: int
    holes: tuple[Hole, ...]
    gaps: tuple[Gap, ...]
    breaches: tuple[str, ...]
    retired: int = 0

    @property
    def accepted(self) -> int:
        """How many events were accepted."""
        return sum(self.counts.values())


@dataclass(slots=True)
class _Story:
    """What was heard about one (producer, epoch)."""

    lines: list[_Run] = field(default_factory=list)
    listed: list[_Run] = field(default_factory=list)
    retired: int = 0
    held: list[_Run] = field(default_factory=list)
    letters: list[range] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress(0))
    last_seq: int = 0
    gaps: dict[int, Gap] = field(default_factory=dict)
    unrecorded: dict[str, int] = field(default_factory=dict)
    # The run of lines that goes on.
    first: int = 0
    last: int = -1
    inside: bool = True


class Ledger:
    """Gathers what the spool and the archive say, in any order, and settles it."""

    def __init__(self) -> None:
        self._stories: dict[Key, _Story] = {}

    def _of(self, producer: str, epoch: int) -> _Story:
        story = self._stories.get((producer, epoch))
        if story is None:
            story = self._stories[producer, epoch] = _Story()
        return story

    def archived(self, line: Line, *, inside: bool = True) -> None:
        """Hear of a line in the archive.

        Args:
            line: The line.
            inside: Whether it belongs to what is asked about.
        """
        story = self._of(line.producer, line.epoch)
        seq = line.seq
        if seq == story.last + 1 and inside is story.inside:
            story.last = seq
        else:
            _end_run(story)
            story.first = story.last = seq
            story.inside = inside
        if line.gap is not None and inside:
            story.gaps[seq] = line.gap

    def retired(self, run: RetiredRun, *, inside: bool = True) -> None:
        """Hear of archived lines that retention removed.

        Args:
            run: Their numbers.
            inside: Whether they belong to what is asked about.
        """
        story = self._of(run.producer, run.epoch)
        story.lines.append(_Run(run.first_seq, run.last_seq, "archived", inside))
        story.retired += run.size if inside else 0

    def held(self, line: Line, *, inside: bool = True) -> None:
        """Hear of a line in the spool; one that the archive has, too, changes nothing.

        Args:
            line: The line.
            inside: Whether it belongs to what is asked about.
        """
        story = self._of(line.producer, line.epoch)
        # Numbers above it were given after the spool was looked at.
        if line.seq <= story.last_seq:
            story.held.append(_Run(line.seq, line.seq, "in_flight", inside))
            if line.gap is not None and inside:
                story.gaps[line.seq] = line.gap

    def accepted(self, producer: str, epoch: int, last_seq: int) -> None:
        """Hear from the spool how far an epoch got; before any line of the spool is told."""
        story = self._of(producer, epoch)
        story.last_seq = max(story.last_seq, last_seq)

    def unrecorded(self, producer: str, epoch: int, drops: Mapping[str, int]) -> None:
        """Hear of drops and refusals, by class, that no gap record tells of yet."""
        story = self._of(producer, epoch)
        for of_class, count in drops.items():
            story.unrecorded[of_class] = story.unrecorded.get(of_class, 0) + count

    def progress(self, producer: str, epoch: int, progress: Progress) -> None:
        """Hear what the catalogue counted."""
        self._of(producer, epoch).progress = progress

    def removed(self, row: RemovedRun, *, inside: bool | None = True) -> None:
        """Hear which numbers the catalogue lists as not archived.

        Args:
            row: Its row.
            inside: Whether they belong to what is asked about; None to go by the numbers around them.
        """
        why = NEVER_CAME if row.why == "missing" else ""
        self._of(row.producer, row.epoch).listed.append(_Run(row.first_seq, row.last_seq, row.why, inside, why))

    def letter(self, producer: str, epoch: int, numbers: range) -> None:
        """Hear of a dead letter, settled or not.

        Args:
            producer: Whose numbers it accounts for.
            epoch: Of which epoch.
            numbers: Which.
        """
        self._of(producer, epoch).letters.append(numbers)

    def doubled(self, producer: str, epoch: int, event_id: str) -> None:
        """Hear of a line whose id another line has, too."""
        self._of(producer, epoch).doubles.append(f"the id {event_id} is archived under another number, too")

    def lost(self) -> list[Hole]:
        """Return the numbers above the watermarks that were accepted and that the spool does not hold."""
        return [
            hole
            for story in self._stories.values()
            for hole in _holes(_without_overlap(_above(story), story.progress.seq, story.last_seq, [], []))
        ]

    def settle(self) -> list[Account]:
        """Bring everything together.

        Returns:
            An account for each (producer, epoch), in order.
        """
        for story in self._stories.values():
            _end_run(story)
        accounts = [_settle(key, self._stories[key]) for key in sorted(self._stories)]
        return [one for _, group in groupby(accounts, lambda one: one.producer) for one in _with_damage(list(group))]


def _end_run(story: _Story) -> None:
    if story.first:
        story.lines.append(_Run(story.first, story.last, "archived", story.inside))
    story.first, story.last = 0, -1


def _above(story: _Story) -> list[_Run]:
    return sorted((run for run in story.held if run.first_seq > story.progress.seq), key=_place)


def _place(run: _Run) -> tuple[int, int]:
    return run.first_seq, run.last_seq


def _settle(key: Key, story: _Story) -> Account:
    breaches: list[str] = []
    doubled: list[_Run] = []
    watermark = story.progress.seq
    beyond = max((run.last_seq for run in story.lines), default=0)
    if beyond > watermark:
        breaches.append(f"number {beyond} is archived, but the catalogue has got no further than {watermark}")
    last_seq = max(watermark, beyond, story.last_seq)
    told = sorted([*story.lines, *story.listed, *_above(story)], key=_place)
    runs = _known_inside(_without_overlap(told, 0, last_seq, doubled, breaches, watermark))
    breaches += _disagreements(runs, story.progress)
    breaches += _letters_gone(runs, story.letters)
    counts = dict.fromkeys(STATES, 0)
    for run in runs:
        if run.inside:
            counts[run.state] += run.size
    gaps: dict[tuple[str | None, str], int] = {}
    for of_class, reason, count in story.gaps.values():
        gaps[of_class, reason] = gaps.get((of_class, reason), 0) + count
    return Account(
        *key,
        last_seq,
        watermark,
        counts,
        (*(f"{_numbers(run)} archived twice" for run in doubled), *story.doubles),
        sum(run.size for run in doubled) + len(story.doubles),
        _turned_away(gaps, story, "feedback"),
        _turned_away(gaps, story, "served"),
        tuple(_holes(run for run in runs if run.inside)),
        tuple(Gap(*which, count) for which, count in sorted(gaps.items(), key=str)),
        tuple(breaches),
        story.retired,
    )


def _with_damage(accounts: list[Account]) -> list[Account]:
    """Count, once, what a producer's records of damage tell of: events of any of its epochs, with a hole or without.

    Numbers that were given anew leave no hole where events were lost; then the record is all there is.
    """
    told = [sum(gap.events for gap in one.gaps if gap.of_class is None and _is_damage(gap)) for one in accounts]
    unseen = max(0, sum(told) - sum(one.counts["missing"] for one in accounts))
    if not unseen:
        return accounts
    at = next(index for index, count in enumerate(told) if count)
    missing = accounts[at].counts["missing"] + unseen
    accounts[at] = replace(accounts[at], counts={**accounts[at].counts, "missing": missing})
    return accounts


def _is_damage(gap: Gap) -> bool:
    return gap.reason.startswith(_DAMAGE)


def _turned_away(gaps: Mapping[tuple[str | None, str], int], story: _Story, of_class: str) -> int:
    recorded = sum(count for (one, _), count in gaps.items() if one == of_class)
    return recorded + story.unrecorded.get(of_class, 0)


def _without_overlap(
    told: Iterable[_Run], after: int, last_seq: int, doubled: list[_Run], breaches: list[str], watermark: int = 0
) -> list[_Run]:
    """Give every number in (after, last_seq] one state; what is told twice goes to `doubled` or `breaches`."""
    runs: list[_Run] = []
    furthest: _Run | None = None
    next_seq = after + 1

    def missing_until(first_seq: int) -> None:
        for start, stop, why in (
            (next_seq, min(first_seq, watermark + 1), NOT_IN_FILES),
            (max(next_seq, watermark + 1), first_seq, NOT_IN_SPOOL),
        ):
            if start < stop:
                runs.append(_Run(start, stop - 1, "missing", None, why))

    for run in told:
        missing_until(run.first_seq)
        if furthest is not None and run.first_seq < next_seq:
            again = run._replace(last_seq=min(run.last_seq, next_seq - 1))
            if run.state == furthest.state == "archived":
                if again.inside:
                    doubled.append(again)
            elif run.state != "in_flight" or furthest.state != "in_flight":
                breaches.append(f"{_numbers(again)} {furthest.state} and {run.state} at once")
        if run.last_seq >= next_seq:
            runs.append(run._replace(first_seq=max(run.first_seq, next_seq)))
            next_seq, furthest = run.last_seq + 1, run
    missing_until(last_seq + 1)
    return runs


def _known_inside(runs: list[_Run]) -> list[_Run]:
    """Let runs of which it is not known belong where the numbers before them do, or else those after them."""
    before = next((run.inside for run in runs if run.inside is not None), True)
    known = []
    for run in runs:
        before = before if run.inside is None else run.inside
        known.append(run._replace(inside=before))
    return known


def _disagreements(runs: Iterable[_Run], progress: Progress) -> list[str]:
    found = dict.fromkeys(STATES, 0)
    for run in runs:
        if run.first_seq <= progress.seq and run.why not in {NOT_IN_FILES, NOT_IN_SPOOL}:
            found[run.state] += min(run.last_seq, progress.seq) - run.first_seq + 1
    counted = {state: getattr(progress, state) for state in ("archived", *_LISTED)}
    sentences = [
        f"the catalogue counts {count} {_words(state)}, and {found[state]} are to be found"
        for state, count in counted.items()
        if count != found[state]
    ]
    total = sum(counted.values())
    if total != progress.seq:
        sentences.append(f"the catalogue has dealt with {progress.seq} numbers, but accounts for {total}")
    return sentences


def _letters_gone(runs: Iterable[_Run], letters: Iterable[range]) -> list[str]:
    covered: list[range] = []
    for numbers in sorted(letters, key=lambda numbers: numbers.start):
        if covered and numbers.start <= covered[-1].stop:
            before = covered.pop()
            covered.append(range(before.start, max(before.stop, numbers.stop)))
        else:
            covered.append(numbers)
    sentences = []
    for run in runs:
        if run.state == "dead_lettered":
            at = bisect_right(covered, run.first_seq, key=lambda numbers: numbers.start) - 1
            next_seq = max(run.first_seq, covered[at].stop) if at >= 0 else run.first_seq
            if next_seq <= run.last_seq:
                sentences.append(f"{_numbers(run._replace(first_seq=next_seq))} dead-lettered, but there is no letter")
    return sentences


def _holes(runs: Iterable[_Run]) -> Iterable[Hole]:
    return (Hole(run.first_seq, run.last_seq, run.why) for run in runs if run.state == "missing")


def _numbers(run: _Run) -> str:
    return f"number {run.first_seq} is" if run.size == 1 else f"numbers {run.first_seq} to {run.last_seq} are"


def _words(state: str) -> str:
    return state.replace("_", "-")
