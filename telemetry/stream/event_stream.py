"""The event stream between producers and the consumer: one stream for each producer.

Invariants of every `EventStream`:

- After any `StreamError` the caller connects again, and then asks again what the other side holds.
- `append` without `create` never creates a stream, and the consumer never creates one. So an existing stream was begun
  by a producer right after its handshake, and a lost one cannot come back with a gap.
- Only an id that is equal to or below the stream's last id counts as already there.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from telemetry.batch import Batch, Entry, Position
from telemetry.stream.namespace_owner import OwnerMark


class Appended(Enum):
    """The result of an append."""

    ADDED = "added"
    ALREADY_THERE = "already there"
    NO_STREAM = "no stream"


class StreamState(NamedTuple):
    """What the stream holds of a producer."""

    last: Position | None  # The last id of the stream; None if there is no stream.
    tail: Entry | None  # The entry of that id, if it is kept.
    watermark: Position | None  # The position up to which the archive has the events; None without a valid watermark.
    doubt: str | None = None  # Why the watermark is not valid; None if it is valid, or if there is none.
    mark: OwnerMark | None = None  # The owner of the namespace; None if it is unmarked.


class GroupsEnsured(NamedTuple):
    """Producers that have a stream, by the state of its consumer group."""

    ready: set[str]  # The group exists.
    unknown: set[str]  # Redis is out of memory, so its answer does not show whether the group exists.
    wrong_type: set[str]  # The stream's key holds something else.


class StreamEnds(NamedTuple):
    """The last id of a stream, and the id of its last entry; None if it has no entry."""

    last: Position
    kept: Position | None


class Delivered(NamedTuple):
    """Entries of one producer, in the order of the stream."""

    producer: str
    entries: Sequence[Entry]


class CommittedEntries(NamedTuple):
    """Committed entries of one producer, and its watermark; None publishes none."""

    producer: str
    entry_ids: Sequence[str]
    watermark: Position | None


class EventStream(Protocol):
    """Both ends of the stream; a process uses one object for one end. Every method may raise StreamError."""

    @property
    def where(self) -> str:
        """The namespace and the server in words, without credentials."""

    async def connect(self) -> None:
        """Drop any connection and make a new one."""

    async def close(self) -> None:
        """Drop the connection; never raises."""

    async def read_mark(self) -> OwnerMark | None:
        """Return the mark of the namespace's owner."""

    async def mark_if_unmarked(self, mark: OwnerMark) -> OwnerMark | None:
        """Mark the namespace unless it is marked; return its mark, None if Redis has no room for one."""

    async def replace_mark(self, mark: OwnerMark) -> None:
        """Mark the namespace, whatever mark it has, and remove the watermarks of its previous owner."""

    async def handshake(self, producer: str, unix_s: float) -> StreamState:
        """Announce a producer at a time and return what the stream holds of it."""

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        """Append a batch as one entry; `create` allows a new stream."""

    async def producers(self) -> dict[str, float]:
        """Return the producers that ever announced themselves, with the Unix time of the last handshake."""

    async def ensure_groups(self, producers: Sequence[str]) -> GroupsEnsured:
        """Create missing consumer groups; a producer without a stream is left out."""

    async def stream_ends(self, producers: Sequence[str]) -> dict[str, StreamEnds]:
        """Return the ends of streams; a producer without a stream is left out."""

    async def remove_streams(self, producers: Sequence[str]) -> None:
        """Remove streams with their groups, so that their producers begin them again."""

    async def scan(self, watermarks: Mapping[str, Position], *, max_entries: int) -> list[Delivered]:
        """Read entries beyond positions without a group, which works without memory; out-of-range ids are left out."""

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        """Read at most `max_entries` of each producer that has a group.

        With `pending`, entries delivered before and not acknowledged, without waiting; else new ones, waiting up to
        `block_ms`. Raises GroupMissingError when Redis lost a stream.
        """

    async def acknowledge(self, acknowledgements: Sequence[CommittedEntries]) -> bool:
        """Acknowledge entries, trim streams up to the watermarks and publish these; False if there is no room."""


async def publish_watermarks(stream: EventStream, watermarks: Mapping[str, Position]) -> bool:
    """Publish watermarks again, because Redis may have lost them; return False if it has no room for them."""
    return await stream.acknowledge([CommittedEntries(name, (), position) for name, position in watermarks.items()])
