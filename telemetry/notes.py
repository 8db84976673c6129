"""Typed notes to observers of telemetry, which has no logger of its own.

Invariant: an observer cannot break the work it watches; what it raises is suppressed.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Connected:
    """The stream answers."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream does not answer; sent once for each outage."""

    error: str


@dataclass(frozen=True, slots=True)
class Rewound:
    """Redis lost the events beyond `after`, up to `reached`; they are sent again."""

    producer: str
    after: str
    reached: str


@dataclass(frozen=True, slots=True)
class WatermarkDoubted:
    """A watermark is not valid and releases nothing; sent once for each reason."""

    producer: str
    reason: str


@dataclass(frozen=True, slots=True)
class IdentityChanged:
    """The producer took a new epoch or id while running."""

    producer: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Served lists were dropped or feedback was refused; a gap record counts them."""

    count: int
    of_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """The write-ahead log cannot be written and feedback is refused; sent once until it can."""

    error: str


@dataclass(frozen=True, slots=True)
class DiskRecovered:
    """The write-ahead log can be written again."""


@dataclass(frozen=True, slots=True)
class OrphanShipped:
    """An orphaned slot was shipped: it held `recovered` events, and `left` of them were not shipped."""

    slot: int
    recovered: int
    left: int


@dataclass(frozen=True, slots=True)
class StandingBy:
    """Another consumer holds the lease."""

    holder: str


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """This consumer holds the lease."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another consumer took the lease over."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit was made."""

    archived: int
    deduplicated: int
    dead_lettered: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class SequenceGapFound:
    """A producer's numbers jump: `missing` events after `after_seq` are missing."""

    producer: str
    epoch: int
    after_seq: int
    missing: int


@dataclass(frozen=True, slots=True)
class StreamGapFound:
    """Redis lost entries of a producer's stream after `after`; the producer sends them again."""

    producer: str
    after: str


@dataclass(frozen=True, slots=True)
class StreamGapKept:
    """Redis refuses to remove a stream with a gap, so it cannot be sent again; sent once for each reason."""

    error: str


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """An event or entry went to the dead letters."""

    producer: str
    entry_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ArchiveFailed:
    """The archive cannot be written; the consumer tries again."""

    error: str


@dataclass(frozen=True, slots=True)
class SinkFailed:
    """A sink raised; the archive is not affected."""

    sink: str
    error: str


@dataclass(frozen=True, slots=True)
class UserErased:
    """A user is erased from the archive and from `models` published models."""

    erase_id: str
    models: int


@dataclass(frozen=True, slots=True)
class EraseFailed:
    """A user cannot be erased in one place, `archive` or a `UserEraser`; it is tried again."""

    where: str
    error: str


@dataclass(frozen=True, slots=True)
class DateRetired:
    """The events of a UTC date are not kept any more."""

    day: str
    events: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RetentionBehind:
    """The archive exceeds its retention for a reason that an operator can change."""

    why: str


ProducerNote: TypeAlias = (
    Connected
    | Disconnected
    | Rewound
    | WatermarkDoubted
    | IdentityChanged
    | Dropped
    | DiskFailed
    | DiskRecovered
    | OrphanShipped
)
ConsumerNote: TypeAlias = (
    Connected
    | Disconnected
    | StandingBy
    | LeaseTaken
    | LeaseLost
    | Committed
    | SequenceGapFound
    | StreamGapFound
    | StreamGapKept
    | DeadLettered
    | ArchiveFailed
    | SinkFailed
    | UserErased
    | EraseFailed
    | DateRetired
    | RetentionBehind
)
ProducerObserver: TypeAlias = Callable[[ProducerNote], None]
ConsumerObserver: TypeAlias = Callable[[ConsumerNote], None]

_Note = TypeVar("_Note")


def notify(observer: Callable[[_Note], None] | None, note: _Note) -> None:
    """Pass a note to an observer, if there is one."""
    if observer is not None:
        with suppress(Exception):
            observer(note)
