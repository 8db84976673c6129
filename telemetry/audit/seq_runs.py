"""Runs of sequence numbers in one state, and their combination from several sources; pure."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias

from telemetry.catalogue.commit import Progress

SeqState: TypeAlias = Literal["archived", "in_flight", "deduplicated", "dead_lettered", "erased", "missing"]
STATES: Final[tuple[SeqState, ...]] = ("archived", "in_flight", "deduplicated", "dead_lettered", "erased", "missing")
# The states that the catalogue counts.
_COUNTED: Final = tuple(state for state in STATES if state != "in_flight")

NOT_IN_FILES: Final = "neither in the files nor among the removed"
NOT_IN_SPOOL: Final = "neither archived nor in the spool"
NEVER_CAME: Final = "never came to the consumer"


class Hole(NamedTuple):
    """A run of missing sequence numbers."""

    first_seq: int
    last_seq: int
    why: str


class SeqRun(NamedTuple):
    """Sequence numbers in one state; `inside` is whether they belong to the audited period, None if unknown."""

    first_seq: int
    last_seq: int
    state: SeqState
    inside: bool | None
    why: str = ""

    @property
    def size(self) -> int:
        """How many sequence numbers it covers."""
        return self.last_seq - self.first_seq + 1

    def __str__(self) -> str:
        return f"number {self.first_seq} is" if self.size == 1 else f"numbers {self.first_seq} to {self.last_seq} are"


class Partition(NamedTuple):
    """Runs without overlap, with one state for each sequence number.

    Attributes:
        runs: In order.
        duplicates: Runs inside the period that are archived again.
        conflicts: Numbers in two states at once, one sentence each.
    """

    runs: list[SeqRun]
    duplicates: list[SeqRun]
    conflicts: list[str]


def partition(found: Iterable[SeqRun], after: int, last_seq: int, watermark: int = 0) -> Partition:
    """Give each sequence number in (after, last_seq] one state; numbers in no run are missing.

    Args:
        watermark: Up to here a missing number was lost by the archive, beyond it by the spool.
    """
    result = Partition([], [], [])
    runs = result.runs
    furthest: SeqRun | None = None
    next_seq = after + 1

    def missing_until(first_seq: int) -> None:
        for start, stop, why in (
            (next_seq, min(first_seq, watermark + 1), NOT_IN_FILES),
            (max(next_seq, watermark + 1), first_seq, NOT_IN_SPOOL),
        ):
            if start < stop:
                runs.append(SeqRun(start, stop - 1, "missing", None, why))

    for run in sorted(found, key=lambda run: run[:2]):
        missing_until(run.first_seq)
        if furthest is not None and run.first_seq < next_seq:
            again = run._replace(last_seq=min(run.last_seq, next_seq - 1))
            if run.state == furthest.state == "archived":
                if again.inside:
                    result.duplicates.append(again)
            elif run.state != "in_flight" or furthest.state != "in_flight":
                result.conflicts.append(f"{again} {furthest.state} and {run.state} at once")
        if run.last_seq >= next_seq:
            runs.append(run._replace(first_seq=max(run.first_seq, next_seq)))
            next_seq, furthest = run.last_seq + 1, run
    missing_until(last_seq + 1)
    return result


def with_periods(runs: list[SeqRun]) -> list[SeqRun]:
    """Let runs of unknown period inherit it from the preceding run, or the first ones from the first known run."""
    inside = next((run.inside for run in runs if run.inside is not None), True)
    known = []
    for run in runs:
        inside = inside if run.inside is None else run.inside
        known.append(run._replace(inside=inside))
    return known


def holes(runs: Iterable[SeqRun]) -> list[Hole]:
    """Return the missing runs."""
    return [Hole(run.first_seq, run.last_seq, run.why) for run in runs if run.state == "missing"]


def count_differences(runs: Iterable[SeqRun], progress: Progress) -> list[str]:
    """Compare the catalogue's counts with the runs up to its watermark; returns a sentence for each difference."""
    found = dict.fromkeys(STATES, 0)
    for run in runs:
        if run.first_seq <= progress.seq and run.why not in {NOT_IN_FILES, NOT_IN_SPOOL}:
            found[run.state] += min(run.last_seq, progress.seq) - run.first_seq + 1
    counted = {state: getattr(progress, state) for state in _COUNTED}
    sentences = [
        f"the catalogue counts {count} {state.replace('_', '-')}, but {found[state]} were found"
        for state, count in counted.items()
        if count != found[state]
    ]
    total = sum(counted.values())
    if total != progress.seq:
        sentences.append(f"the catalogue has handled {progress.seq} numbers, but accounts for {total}")
    return sentences


def missing_letters(runs: Iterable[SeqRun], letters: Iterable[range]) -> list[str]:
    """Return a sentence for each dead-lettered run that no dead letter covers."""
    covered: list[range] = []
    for seqs in sorted(letters, key=lambda seqs: seqs.start):
        if covered and seqs.start <= covered[-1].stop:
            before = covered.pop()
            covered.append(range(before.start, max(before.stop, seqs.stop)))
        else:
            covered.append(seqs)
    sentences = []
    for run in runs:
        if run.state == "dead_lettered":
            at = bisect_right(covered, run.first_seq, key=lambda seqs: seqs.start) - 1
            next_seq = max(run.first_seq, covered[at].stop) if at >= 0 else run.first_seq
            if next_seq <= run.last_seq:
                sentences.append(f"{run._replace(first_seq=next_seq)} dead-lettered, but there is no letter")
    return sentences
