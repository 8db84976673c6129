"""Reconciles accepted events with the archive: the state of each number, and whether all sources agree.

Invariant: of every (producer, epoch) each number from 1 to the highest known one gets exactly one state, so
accepted = archived + in flight + deduplicated + dead-lettered + erased + missing holds by construction. A number is
archived because a line with it was read or removed by retention, not because it was counted; the catalogue's counts are
then compared with the lines found, and every difference is a breach.

Pure: lines and rows are arguments. Memory grows with the holes, not with the events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

from telemetry.archive.retention import RetiredRun
from telemetry.audit.event_outline import EventOutline, GapCount
from telemetry.audit.seq_runs import (
    NEVER_CAME,
    STATES,
    Hole,
    SeqRun,
    SeqState,
    count_differences,
    holes,
    missing_letters,
    partition,
    with_periods,
)
from telemetry.catalogue.commit import Progress, RemovedRun

_DAMAGE: Final = "damage"


@dataclass(frozen=True, slots=True)
class EpochAccount:
    """The events of one (producer, epoch), as far as they belong to the audited period.

    Attributes:
        producer: The producer.
        epoch: Its epoch.
        last_seq: The highest known number.
        watermark: The highest number that the archive has handled.
        counts: By state.
        duplicates: Duplicated lines, one sentence for each or for a run of them.
        duplicated: Their number.
        refused: Feedback events that were answered 503.
        dropped: Served events that were not recorded.
        holes: The missing numbers.
        gaps: The counts of gap records, summed by class and reason.
        breaches: Disagreements of the sources, one sentence each, whether or not inside the period.
        retired: How many of the archived were removed by retention.
    """

    producer: str
    epoch: int
    last_seq: int
    watermark: int
    counts: Mapping[SeqState, int]
    duplicates: tuple[str, ...]
    duplicated: int
    refused: int
    dropped: int
    holes: tuple[Hole, ...]
    gaps: tuple[GapCount, ...]
    breaches: tuple[str, ...]
    retired: int = 0

    @property
    def accepted(self) -> int:
        """How many events were accepted."""
        return sum(self.counts.values())


@dataclass(slots=True)
class _Findings:
    """What all sources hold about one (producer, epoch)."""

    lines: list[SeqRun] = field(default_factory=list)
    removed: list[SeqRun] = field(default_factory=list)
    spooled: list[SeqRun] = field(default_factory=list)
    letters: list[range] = field(default_factory=list)
    duplicate_ids: list[str] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress(0))
    last_seq: int = 0
    retired: int = 0
    gaps: dict[int, GapCount] = field(default_factory=dict)
    unrecorded: dict[str, int] = field(default_factory=dict)
    # The run of archived lines that the next line may continue.
    first: int = 0
    last: int = -1
    inside: bool = True

    def end_run(self) -> None:
        if self.first:
            self.lines.append(SeqRun(self.first, self.last, "archived", self.inside))
        self.first, self.last = 0, -1

    @property
    def in_flight(self) -> list[SeqRun]:
        """The spooled runs above the watermark."""
        return [run for run in self.spooled if run.first_seq > self.progress.seq]


class Reconciliation:
    """Collects what the spool and the archive hold, in any order, and accounts for it.

    In all `add_` methods `inside` is whether the numbers belong to the audited period.
    """

    def __init__(self) -> None:
        self._findings: dict[tuple[str, int], _Findings] = {}

    def _findings_of(self, producer: str, epoch: int) -> _Findings:
        found = self._findings.get((producer, epoch))
        if found is None:
            found = self._findings[producer, epoch] = _Findings()
        return found

    def add_archived(self, event: EventOutline, *, inside: bool = True) -> None:
        """Add a line of the archive."""
        found = self._findings_of(event.producer, event.epoch)
        seq = event.seq
        if seq == found.last + 1 and inside is found.inside:
            found.last = seq
        else:
            found.end_run()
            found.first = found.last = seq
            found.inside = inside
        if event.gap is not None and inside:
            found.gaps[seq] = event.gap

    def add_retired(self, run: RetiredRun, *, inside: bool = True) -> None:
        """Add archived lines that retention removed."""
        found = self._findings_of(run.producer, run.epoch)
        found.lines.append(SeqRun(run.first_seq, run.last_seq, "archived", inside))
        found.retired += run.size if inside else 0

    def set_accepted(self, producer: str, epoch: int, last_seq: int) -> None:
        """Set the highest number that the spool gave, before its lines are added."""
        found = self._findings_of(producer, epoch)
        found.last_seq = max(found.last_seq, last_seq)

    def add_spooled(self, event: EventOutline, *, inside: bool = True) -> None:
        """Add a line of the spool; the archive may have it too."""
        found = self._findings_of(event.producer, event.epoch)
        # Higher numbers were given after the spool was inspected.
        if event.seq <= found.last_seq:
            found.spooled.append(SeqRun(event.seq, event.seq, "in_flight", inside))
            if event.gap is not None and inside:
                found.gaps[event.seq] = event.gap

    def add_unrecorded(self, producer: str, epoch: int, counts: Mapping[str, int]) -> None:
        """Add drops and refusals, by class, that no gap record counts yet."""
        found = self._findings_of(producer, epoch)
        for of_class, count in counts.items():
            found.unrecorded[of_class] = found.unrecorded.get(of_class, 0) + count

    def set_progress(self, producer: str, epoch: int, progress: Progress) -> None:
        """Set the catalogue's counts."""
        self._findings_of(producer, epoch).progress = progress

    def add_removed(self, run: RemovedRun, *, inside: bool | None = True) -> None:
        """Add numbers that the catalogue lists as not archived; `inside` None is inherited from the preceding run."""
        why = NEVER_CAME if run.why == "missing" else ""
        found = self._findings_of(run.producer, run.epoch)
        found.removed.append(SeqRun(run.first_seq, run.last_seq, run.why, inside, why))

    def add_dead_letter(self, producer: str, epoch: int, seqs: range) -> None:
        """Add a dead letter, whatever its state, with the numbers it accounts for."""
        self._findings_of(producer, epoch).letters.append(seqs)

    def add_duplicate_id(self, event: EventOutline, name: str) -> None:
        """Add a line whose id another line has, too."""
        self._findings_of(event.producer, event.epoch).duplicate_ids.append(
            f"the id {name} is archived under another number, too"
        )

    def lost(self) -> list[Hole]:
        """Return the numbers above the watermarks that were accepted and that the spool does not hold."""
        return [
            hole
            for found in self._findings.values()
            for hole in holes(partition(found.in_flight, found.progress.seq, found.last_seq).runs)
        ]

    def accounts(self) -> list[EpochAccount]:
        """Return an account for each (producer, epoch), in order."""
        accounts = [_account(*key, self._findings[key]) for key in sorted(self._findings)]
        return [one for _, group in groupby(accounts, lambda one: one.producer) for one in _with_damage(list(group))]


def _account(producer: str, epoch: int, found: _Findings) -> EpochAccount:
    found.end_run()
    breaches: list[str] = []
    watermark = found.progress.seq
    beyond = max((run.last_seq for run in found.lines), default=0)
    if beyond > watermark:
        breaches.append(f"number {beyond} is archived, but the catalogue's watermark is {watermark}")
    last_seq = max(watermark, beyond, found.last_seq)
    runs, duplicates, conflicts = partition([*found.lines, *found.removed, *found.in_flight], 0, last_seq, watermark)
    runs = with_periods(runs)
    breaches += [*conflicts, *count_differences(runs, found.progress), *missing_letters(runs, found.letters)]
    counts = dict.fromkeys(STATES, 0)
    for run in runs:
        if run.inside:
            counts[run.state] += run.size
    gaps: dict[tuple[str | None, str], int] = {}
    for of_class, reason, count in found.gaps.values():
        gaps[of_class, reason] = gaps.get((of_class, reason), 0) + count

    def gap_total(of_class: str) -> int:
        recorded = sum(count for (one, _), count in gaps.items() if one == of_class)
        return recorded + found.unrecorded.get(of_class, 0)

    return EpochAccount(
        producer,
        epoch,
        last_seq,
        watermark,
        counts,
        duplicates=(*(f"{run} archived twice" for run in duplicates), *found.duplicate_ids),
        duplicated=sum(run.size for run in duplicates) + len(found.duplicate_ids),
        refused=gap_total("feedback"),
        dropped=gap_total("served"),
        holes=tuple(holes(run for run in runs if run.inside)),
        gaps=tuple(GapCount(*key, count) for key, count in sorted(gaps.items(), key=str)),
        breaches=tuple(breaches),
        retired=found.retired,
    )


def _with_damage(accounts: list[EpochAccount]) -> list[EpochAccount]:
    """Add the events that a producer's damage records count beyond its missing numbers, once for all epochs.

    Lost events whose numbers were given again leave no hole; then the damage record is the only trace.
    """
    recorded = [
        sum(gap.events for gap in one.gaps if gap.of_class is None and gap.reason.startswith(_DAMAGE))
        for one in accounts
    ]
    unseen = max(0, sum(recorded) - sum(one.counts["missing"] for one in accounts))
    if not unseen:
        return accounts
    at = next(index for index, count in enumerate(recorded) if count)
    missing = accounts[at].counts["missing"] + unseen
    accounts[at] = replace(accounts[at], counts={**accounts[at].counts, "missing": missing})
    return accounts
