"""Typed notes to observers of telemetry, which has no logger of its own.

Invariant: an observer cannot break the work it watches; what it raises is suppressed.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Note:
    """Base of all notes."""


@dataclass(frozen=True, slots=True)
class Connected(Note):
    """The stream answers."""


@dataclass(frozen=True, slots=True)
class Disconnected(Note):
    """The stream does not answer; sent once for each outage."""

    error: str


@dataclass(frozen=True, slots=True)
class Rewound(Note):
    """Redis lost the events beyond `after`, up to `reached`; they are sent again."""

    producer: str
    after: str
    reached: str


@dataclass(frozen=True, slots=True)
class WatermarkDoubted(Note):
    """A watermark is not valid and releases nothing; sent once for each reason."""

    producer: str
    reason: str


@dataclass(frozen=True, slots=True)
class IdentityChanged(Note):
    """The producer took a new epoch or id while running."""

    producer: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped(Note):
    """Served lists were dropped or feedback was refused; a gap record counts them."""

    count: int
    of_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiskFailed(Note):
    """The write-ahead log cannot be written and feedback is refused; sent once until it can."""

    error: str


@dataclass(frozen=True, slots=True)
class DiskRecovered(Note):
    """The write-ahead log can be written again."""


@dataclass(frozen=True, slots=True)
class OrphanShipped(Note):
    """An orphaned slot was shipped: it held `recovered` events, and `left` of them were not shipped."""

    slot: int
    recovered: int
    left: int


@dataclass(frozen=True, slots=True)
class StandingBy(Note):
    """Another consumer holds the lease."""

    holder: str


@dataclass(frozen=True, slots=True)
class FrozenProcessEnded(Note):
    """A process that held a lock of the archive and did not run was killed, so that archiving goes on."""

    pid: int


@dataclass(frozen=True, slots=True)
class LeaseTaken(Note):
    """This consumer holds the lease."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseLost(Note):
    """Another consumer took the lease over."""


@dataclass(frozen=True, slots=True)
class Committed(Note):
    """A commit was made."""

    archived: int
    deduplicated: int
    dead_lettered: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class SequenceGapFound(Note):
    """A producer's numbers jump: `missing` events after `after_seq` are missing."""

    producer: str
    epoch: int
    after_seq: int
    missing: int


@dataclass(frozen=True, slots=True)
class StreamGapFound(Note):
    """Redis lost entries of a producer's stream after `after`; the producer sends them again."""

    producer: str
    after: str


@dataclass(frozen=True, slots=True)
class StreamGapKept(Note):
    """Redis refuses to remove a stream with a gap, so it cannot be sent again; sent once for each reason."""

    error: str


@dataclass(frozen=True, slots=True)
class DeadLettered(Note):
    """An event or entry went to the dead letters."""

    producer: str
    entry_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ArchiveFailed(Note):
    """The archive cannot be written; the consumer tries again."""

    error: str


@dataclass(frozen=True, slots=True)
class SinkFailed(Note):
    """A sink raised; the archive is not affected."""

    sink: str
    error: str


@dataclass(frozen=True, slots=True)
class UserErased(Note):
    """A user is erased from the archive and from `models` published models."""

    erase_id: str
    models: int


@dataclass(frozen=True, slots=True)
class EraseFailed(Note):
    """A user cannot be erased in one place, `archive` or a `UserEraser`; it is tried again."""

    where: str
    error: str


@dataclass(frozen=True, slots=True)
class DateRetired(Note):
    """The events of a UTC date are not kept any more."""

    day: str
    events: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RetentionBehind(Note):
    """The archive exceeds its retention for a reason that an operator can change."""

    why: str


@dataclass(frozen=True, slots=True)
class StateRestored(Note):
    """The live state is that of the archive, from which `events` were read; all of them if `rebuilt` gives a reason."""

    events: int
    duration_s: float
    rebuilt: str | None


@dataclass(frozen=True, slots=True)
class StateFailed(Note):
    """The state snapshot cannot be read or written; it is tried again, and archiving goes on."""

    error: str


@dataclass(frozen=True, slots=True)
class FeedBegun(Note):
    """A generation of the feed has begun: replicas load the state snapshot."""

    generation: int


@dataclass(frozen=True, slots=True)
class FeedAway(Note):
    """The feed cannot be appended to; sent once for each outage."""

    error: str


Observer: TypeAlias = Callable[[Note], None]


def notify(observer: Observer | None, note: Note) -> None:
    """Pass a note to an observer, if there is one."""
    if observer is not None:
        with suppress(Exception):
            observer(note)
