"""What one commit adds to the archive, as values.

Invariant of these values: for every (producer, epoch)
seq = archived + deduplicated + dead_lettered + erased + missing, and the sequence numbers that are not archived lines
are exactly those of the `RemovedRun`s.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

SeenKey: TypeAlias = tuple[str, str]
"""(tenant, event_id)."""
RemovalReason: TypeAlias = Literal["deduplicated", "dead_lettered", "erased", "missing"]


class SeenEvent(NamedTuple):
    """An archived feedback event, kept to recognise its duplicates."""

    tenant: str
    event_id: str
    fingerprint: bytes


class FileLength(NamedTuple):
    """A file's committed length."""

    size_bytes: int
    lines: int


@dataclass(slots=True)
class Progress:
    """The counts of one (producer, epoch), and the sequence number that they reach."""

    seq: int
    archived: int = 0
    deduplicated: int = 0
    dead_lettered: int = 0
    erased: int = 0
    missing: int = 0
    holes: int = 0


class RemovedRun(NamedTuple):
    """A run of sequence numbers that are not archived lines; `received_at` is that of the last, None if unknown."""

    producer: str
    epoch: int
    first_seq: int
    last_seq: int
    why: RemovalReason
    received_at: str | None

    @property
    def size(self) -> int:
        """How many sequence numbers it covers."""
        return self.last_seq - self.first_seq + 1


class ErasureRequest(NamedTuple):
    """A user to erase; `user_id` is stored in the clear only until that is done."""

    erase_id: str
    user_id: str
    user_digest: str
    requested_at: str


@dataclass(slots=True)
class CommitContent:
    """What a commit adds: lines by folder, and what they mean."""

    folders: dict[str, list[bytes]] = field(default_factory=dict)
    progress: dict[tuple[str, int], Progress] = field(default_factory=dict)
    seen: list[SeenEvent] = field(default_factory=list)
    removed: list[RemovedRun] = field(default_factory=list)
    erasures: list[ErasureRequest] = field(default_factory=list)


@dataclass(slots=True)
class CatalogueChange:
    """One transaction of the catalogue.

    Attributes:
        files: Committed lengths by path relative to the archive.
        seal: Whether every file that is not among them is complete now.
        added: What the lines in them mean; its `folders` are ignored.
        now_s: The archive's time in seconds, stored with the seen events.
    """

    files: Mapping[str, FileLength] = field(default_factory=dict)
    seal: bool = False
    added: CommitContent = field(default_factory=CommitContent)
    now_s: int = 0


def add_run(
    runs: list[RemovedRun], producer: str, epoch: int, seqs: range, why: RemovalReason, received_at: str | None
) -> None:
    """Append a run of removed sequence numbers to `runs`, joined to the last one if it continues it."""
    first_seq = seqs.start
    if runs and runs[-1][:2] == (producer, epoch) and runs[-1].why == why and runs[-1].last_seq + 1 == first_seq:
        first_seq = runs.pop().first_seq
    runs.append(RemovedRun(producer, epoch, first_seq, seqs.stop - 1, why, received_at))


def runs_of(events: Iterable[tuple[str, int, int, str | None]], why: RemovalReason) -> list[RemovedRun]:
    """Join single sequence numbers into as few runs as cover them.

    Args:
        events: (producer, epoch, seq, received_at), in any order, each seq once.
    """
    runs: list[RemovedRun] = []
    for producer, epoch, seq, received_at in sorted(events, key=lambda event: event[:3]):
        add_run(runs, producer, epoch, range(seq, seq + 1), why, received_at)
    return runs
