"""What telemetry tells whoever observes it: typed notes, because it has no logger of its own.

Invariant: an observer cannot break the work it watches; what it raises is swallowed here.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Connected:
    """The stream answers (again)."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream does not answer; told once per outage."""

    error: str


@dataclass(frozen=True, slots=True)
class Rewound:
    """Redis had forgotten events beyond `after`, up to `reached`; they are sent again."""

    producer: str
    after: str
    reached: str


@dataclass(frozen=True, slots=True)
class WatermarkDoubted:
    """What stands in the place of the archive's word is not believed, and releases nothing; told once per reason."""

    producer: str
    reason: str


@dataclass(frozen=True, slots=True)
class IdentityChanged:
    """The producer took a new epoch or a new id while running."""

    producer: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Served events were dropped, or feedback was refused; a gap record of the same content has been written."""

    count: int
    of_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """The write-ahead log cannot be written; told once until it can. Feedback is refused meanwhile."""

    error: str


@dataclass(frozen=True, slots=True)
class DiskRecovered:
    """The write-ahead log can be written again."""


@dataclass(frozen=True, slots=True)
class OrphanShipped:
    """A slot that nobody held was shipped: `recovered` events were in it, `left` of them did not get out."""

    slot: int
    recovered: int
    left: int


@dataclass(frozen=True, slots=True)
class StandingBy:
    """Another consumer holds the lease."""

    holder: str


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """This consumer is the active one."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another consumer took over."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit: what it added, and what it took in seconds."""

    archived: int
    deduplicated: int
    dead_lettered: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class SequenceGapFound:
    """A producer's numbers jump: `missing` events after `after_seq` never came."""

    producer: str
    epoch: int
    after_seq: int
    missing: int


@dataclass(frozen=True, slots=True)
class StreamGapFound:
    """Redis lost entries of a producer's stream after `after`; the producer is to send them again."""

    producer: str
    after: str


@dataclass(frozen=True, slots=True)
class StreamGapKept:
    """Redis refuses to remove a stream with a gap, so that it cannot be sent again; told once per reason."""

    error: str


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """An event or entry went to the dead letters."""

    producer: str
    entry_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ArchiveFailed:
    """The archive could not be written; the consumer tries again."""

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
    """A user could not be erased in one place, `archive` or a `UserEraser`; it is tried again."""

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
    """The archive keeps more than it is allowed to, because of something that an operator can change."""

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
    """Pass a note on.

    Args:
        observer: Who wants to know, or None.
        note: What happened.
    """
    if observer is not None:
        with suppress(Exception):
            observer(note)
