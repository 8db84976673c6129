"""What a commit adds to the archive, as values: the account of each producer's numbers, and who is forgotten.

Invariant, kept by whoever makes them: for every (producer, epoch)
seq = archived + deduplicated + dead_lettered + erased + missing, and the numbers that are not archived
lines are exactly those of the `RemovedRun` runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

SeenKey: TypeAlias = tuple[str, str]
RemovalReason: TypeAlias = Literal["deduplicated", "dead_lettered", "erased", "missing"]


class Seen(NamedTuple):
    """An event to remember: its tenant and id, and its fingerprint."""

    tenant: str
    event_id: str
    fingerprint: bytes


class FileLength(NamedTuple):
    """A file's committed length, and how many lines that is."""

    size_bytes: int
    lines: int


@dataclass(slots=True)
class Progress:
    """What a commit adds to one (producer, epoch), and the number it then reaches."""

    seq: int
    archived: int = 0
    deduplicated: int = 0
    dead_lettered: int = 0
    erased: int = 0
    missing: int = 0
    holes: int = 0


class RemovedRun(NamedTuple):
    """A run of numbers that are not archived lines; `received_at` is that of the last, or None if unknown."""

    producer: str
    epoch: int
    first_seq: int
    last_seq: int
    why: RemovalReason
    received_at: str | None


class ErasureRequest(NamedTuple):
    """A user to forget; `user_id` is kept in the clear only until that is done."""

    erase_id: str
    user_id: str
    user_digest: str
    requested_at: str


@dataclass(slots=True)
class CommitContent:
    """What a commit adds: lines by folder, and what they mean."""

    folders: dict[str, list[bytes]] = field(default_factory=dict)
    progress: dict[tuple[str, int], Progress] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    removed: list[RemovedRun] = field(default_factory=list)
    erasures: list[ErasureRequest] = field(default_factory=list)


@dataclass(slots=True)
class CatalogueChange:
    """One transaction of the catalogue.

    Attributes:
        files: Committed lengths by path relative to the archive.
        seal: Whether every file that is not among them is complete now.
        added: What the lines in them mean; its `folders` are not looked at.
        now_s: The archive's time in seconds, for the events to remember.
    """

    files: Mapping[str, FileLength] = field(default_factory=dict)
    seal: bool = False
    added: CommitContent = field(default_factory=CommitContent)
    now_s: int = 0


def add_run(
    runs: list[RemovedRun], producer: str, epoch: int, numbers: range, why: RemovalReason, received_at: str | None
) -> None:
    """Add a run of removed numbers, joined to the last one if it continues it.

    Args:
        runs: Changed in place.
        producer: Whose numbers.
        epoch: Of which epoch.
        numbers: Which, without holes and not empty.
        why: What became of them.
        received_at: When the last of them was received, if known.
    """
    first_seq = numbers.start
    if runs and runs[-1][:2] == (producer, epoch) and runs[-1].why == why and runs[-1].last_seq + 1 == first_seq:
        first_seq = runs.pop().first_seq
    runs.append(RemovedRun(producer, epoch, first_seq, numbers.stop - 1, why, received_at))


def runs_of(places: Sequence[tuple[str, int, int, str | None]], why: RemovalReason) -> list[RemovedRun]:
    """Gather single numbers into runs.

    Args:
        places: (producer, epoch, seq, received_at), in any order, each number once.
        why: What became of them.

    Returns:
        As few runs as cover them.
    """
    runs: list[RemovedRun] = []
    for producer, epoch, seq, received_at in sorted(places, key=lambda place: place[:3]):
        add_run(runs, producer, epoch, range(seq, seq + 1), why, received_at)
    return runs
