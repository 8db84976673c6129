"""The road between producers and the consumer: one Redis stream per producer.

Invariants of every `EventStream`:

- After any `StreamError` the caller connects again, and thereby knows that it has to ask what the other side still has
  (connection.py).
- `append` without `create` never makes a stream, and the consumer never makes one either. So a stream that
  exists was begun by a producer that had just asked, and a forgotten one cannot silently grow a hole.
- Only Redis' own text for "equal or smaller id" counts as already there.
"""

import asyncio
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.errors import GroupMissingError, StreamRefusedError
from telemetry.stream.key_names import DEFAULT_NAMESPACE, Keys
from telemetry.stream.namespace_owner import OwnerMark
from telemetry.stream.redis_connection import Argument, Command, RedisConnection, Refusal
from telemetry.stream.redis_refusals import meaning
from telemetry.stream.watermark_seal import FIELDS, Seal

GROUP: Final = "archive"
# One name for every consumer: the lease lets one at a time in, and its successor inherits what is pending.
_CONSUMER: Final = "archive"

_ALREADY_THERE = "equal or smaller than the target stream top item"
_NO_SUCH_KEY = "no such key"
_NO_KEY_FOR_GROUP = "requires the key to exist"


class Appended(Enum):
    """What became of a batch."""

    ADDED = "added"
    ALREADY_THERE = "already there"
    NO_STREAM = "no stream"


class StreamState(NamedTuple):
    """What Redis has of a producer.

    Attributes:
        last: The last id it gave; None if there is no stream.
        tail: That entry, if it is kept.
        watermark: How far the archive says that it got; None if it says nothing.
        doubt: Why what stands in the watermark's place is not believed; None if it is, or if nothing does.
        mark: Whose the place is; None if it is unmarked.
    """

    last: Position | None
    tail: Entry | None
    watermark: Position | None
    doubt: str | None = None
    mark: OwnerMark | None = None


class GroupsEnsured(NamedTuple):
    """Producers that have a stream, by what of it.

    Attributes:
        ready: Those with the group.
        bare: Those of which a full Redis does not say whether they have it.
        alien: Those with something else in the stream's place.
    """

    ready: set[str]
    bare: set[str]
    alien: set[str]

    @classmethod
    def none(cls) -> "GroupsEnsured":
        """Return that no producer has a stream."""
        return cls(set(), set(), set())


class StreamEnds(NamedTuple):
    """The last id that a stream gave, and the last one that it still has (None: it has no entry)."""

    last: Position
    kept: Position | None


class Delivered(NamedTuple):
    """Entries of one producer, in the order of the stream."""

    producer: str
    entries: Sequence[Entry]


class Acknowledgement(NamedTuple):
    """Entries of one producer whose events are committed, and how far its archive now reaches."""

    producer: str
    entry_ids: Sequence[str]
    watermark: Position | None


class EventStream(Protocol):
    """Both ends of the road; a process uses one object for one end. Every method may raise StreamError."""

    @property
    def where(self) -> str:
        """The place in words, without credentials."""

    async def connect(self) -> None:
        """Drop whatever connection there is and make a new one."""

    async def close(self) -> None:
        """Drop the connection; never raises."""

    async def read_mark(self) -> OwnerMark | None:
        """Read whose the place is."""

    async def mark_if_unmarked(self, mark: OwnerMark) -> OwnerMark | None:
        """Mark the namespace unless it is marked; return its mark, None if Redis has no room for one."""

    async def replace_mark(self, mark: OwnerMark) -> None:
        """Mark the namespace, whatever mark it has, and remove the watermarks of its previous archive."""

    async def handshake(self, producer: str, unix_s: float) -> StreamState:
        """Announce a producer and ask what is there of it: the handshake."""

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        """Add a batch as one entry; with `create` the stream may come into being."""

    async def producers(self) -> dict[str, float]:
        """List every producer that ever announced itself, and when it last did."""

    async def ensure_groups(self, producers: Sequence[str]) -> GroupsEnsured:
        """See to it that the group exists on each stream; a producer without a stream is left out."""

    async def stream_ends(self, producers: Sequence[str]) -> dict[str, StreamEnds]:
        """Ask how far streams reach; a producer without a stream is left out."""

    async def remove_streams(self, producers: Sequence[str]) -> None:
        """Remove streams, groups and all, so that their producers begin them anew."""

    async def scan(self, watermarks: Mapping[str, Position], *, max_entries: int) -> list[Delivered]:
        """Read entries beyond a place without a group, as a full Redis allows; foreign ids are left out."""

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        """Read entries of joined producers.

        Those delivered before and not settled (`pending`, without waiting), or new ones, waiting up to
        `block_ms`; at most `max_entries` for each producer. Raises GroupMissingError when Redis forgot.
        """

    async def acknowledge(self, settled: Sequence[Acknowledgement]) -> bool:
        """Acknowledge entries, trim what lies at or below the watermarks, and publish these if there is room."""

    async def publish_watermarks(self, watermarks: Mapping[str, Position]) -> bool:
        """Publish watermarks again, because Redis may have lost them; returns whether it had room for them."""


class RedisStream:
    """The real one.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        namespace: What our keys begin with.
        seal: Of the installation; watermarks are written and believed with it alone.
        timeout_s: See `RedisConnection`.

    Raises:
        StreamError: The address is not one of Redis, or the namespace is none.
    """

    def __init__(
        self, url: str, namespace: str = DEFAULT_NAMESPACE, seal: Seal | None = None, *, timeout_s: float = 2.0
    ) -> None:
        self._seal = seal or Seal()
        self._keys = Keys(namespace)
        self._connection = RedisConnection(url, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"<RedisStream {self._keys.namespace} {'connected' if self._connection.is_open else 'closed'}>"

    @property
    def where(self) -> str:
        """See `EventStream.where`."""
        return f"the namespace {self._keys.namespace} of the Redis at {self._connection.address}"

    async def connect(self) -> None:
        """See `EventStream.connect`."""
        await self._connection.open()

    async def close(self) -> None:
        """See `EventStream.close`."""
        await self._connection.close()

    async def read_mark(self) -> OwnerMark | None:
        """See `EventStream.read_mark`."""
        (reply,) = await self._connection.exchange([("GET", self._keys.owner)])
        return _mark(reply)

    async def mark_if_unmarked(self, mark: OwnerMark) -> OwnerMark | None:
        """See `EventStream.mark_if_unmarked`."""
        (reply,) = await self._connection.exchange([("SET", self._keys.owner, str(mark), "NX", "GET")])
        if _is_full(reply):
            return None
        return _mark(reply) or mark

    async def replace_mark(self, mark: OwnerMark) -> None:
        """See `EventStream.replace_mark`."""
        watermarks = [("UNLINK", self._keys.watermark(producer)) for producer in await self.producers()]
        for reply in await self._connection.exchange([*watermarks, ("SET", self._keys.owner, str(mark))]):
            _refuse(reply)

    async def handshake(self, producer: str, unix_s: float) -> StreamState:
        """See `EventStream.handshake`."""
        mark_reply, announced, stream, watermark = await self._connection.exchange(
            [
                ("GET", self._keys.owner),
                ("ZADD", self._keys.producers, unix_s, producer),
                ("XINFO", "STREAM", self._keys.events(producer)),
                ("HMGET", self._keys.watermark(producer), *FIELDS),
            ]
        )
        owner = _mark(mark_reply)
        if not _is_full(announced):
            _refuse(announced)
        if _is_alien(watermark):
            watermark = [b""] * len(FIELDS)
        _refuse(watermark)
        if not self._seal.knows(watermark[-1]):
            # Perhaps the archive was begun anew, with another key.
            self._seal = await asyncio.to_thread(self._seal.renewed)
        mark = self._seal.read(producer, *watermark)
        if isinstance(stream, Refusal) and _NO_SUCH_KEY in stream.text:
            return StreamState(None, None, *mark, owner)
        _refuse(stream)
        return StreamState(*_ends(stream), *mark, owner)

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        """See `EventStream.append`."""
        command: list[Argument] = ["XADD", self._keys.events(producer)]
        if not create:
            command.append("NOMKSTREAM")
        command.append(batch.entry_id)
        for name, value in to_fields(batch).items():
            command += (name, value)
        (reply,) = await self._connection.exchange([command])
        if isinstance(reply, Refusal) and _ALREADY_THERE in reply.text:
            return Appended.ALREADY_THERE
        _refuse(reply)
        return Appended.NO_STREAM if reply is None else Appended.ADDED

    async def producers(self) -> dict[str, float]:
        """See `EventStream.producers`."""
        (reply,) = await self._connection.exchange([("ZRANGE", self._keys.producers, 0, -1, "WITHSCORES")])
        if _is_alien(reply):
            # Each producer puts itself there again with its next handshake.
            await self._connection.exchange([("UNLINK", self._keys.producers)])
            return {}
        _refuse(reply)
        # Ours are UUIDs; what else somebody put there has no stream of ours.
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return {name.decode(): float(score) for name, score in pairs if name.isascii()}

    async def ensure_groups(self, producers: Sequence[str]) -> GroupsEnsured:
        """See `EventStream.ensure_groups`."""
        if not producers:
            return GroupsEnsured.none()
        # From 0, because what was there before the group belongs to the archive too.
        replies = await self._connection.exchange(
            [("XGROUP", "CREATE", self._keys.events(name), GROUP, "0") for name in producers]
        )
        joined = GroupsEnsured.none()
        for name, reply in zip(producers, replies, strict=True):
            if isinstance(reply, Refusal) and _NO_KEY_FOR_GROUP in reply.text:
                continue
            if _is_full(reply):
                joined.bare.add(name)
                continue
            if _is_alien(reply):
                joined.alien.add(name)
                continue
            if not (isinstance(reply, Refusal) and reply.text.startswith("BUSYGROUP")):
                _refuse(reply)
            joined.ready.add(name)
        return joined

    async def stream_ends(self, producers: Sequence[str]) -> dict[str, StreamEnds]:
        """See `EventStream.stream_ends`."""
        if not producers:
            return {}
        replies = await self._connection.exchange([("XINFO", "STREAM", self._keys.events(name)) for name in producers])
        found = {}
        for name, reply in zip(producers, replies, strict=True):
            if _is_alien(reply) or (isinstance(reply, Refusal) and _NO_SUCH_KEY in reply.text):
                continue
            _refuse(reply)
            last, entry = _ends(reply)
            found[name] = StreamEnds(last, None if entry is None else Position.parse(entry.entry_id))
        return found

    async def remove_streams(self, producers: Sequence[str]) -> None:
        """See `EventStream.remove_streams`."""
        for reply in await self._connection.exchange([("UNLINK", self._keys.events(name)) for name in producers]):
            _refuse(reply)

    async def scan(self, watermarks: Mapping[str, Position], *, max_entries: int) -> list[Delivered]:
        """See `EventStream.scan`."""
        found, keys = [], self._keys
        commands = [("XRANGE", keys.events(n), f"({mark}", "+", "COUNT", max_entries) for n, mark in watermarks.items()]
        for name, reply in zip(watermarks, await self._connection.exchange(commands), strict=True):
            if _is_alien(reply):
                continue
            _refuse(reply)
            entries = [_entry(item) for item in reply]
            if known := [entry for entry in entries if Position.parse(entry.entry_id).in_range]:
                found.append(Delivered(name, known))
        return found

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        """See `EventStream.read`."""
        command: list[Argument] = ["XREADGROUP", "GROUP", GROUP, _CONSUMER, "COUNT", max_entries]
        if not pending:
            command += ("BLOCK", block_ms)
        names = {self._keys.events(name).encode(): name for name in producers}
        command += ("STREAMS", *names, *(["0" if pending else ">"] * len(names)))
        (reply,) = await self._connection.exchange([command], extra_s=0 if pending else block_ms / 1000)
        _refuse(reply)
        if reply is None:
            return []
        return [Delivered(names[key], [_entry(item) for item in items]) for key, items in reply if items]

    async def acknowledge(self, settled: Sequence[Acknowledgement]) -> bool:
        """See `EventStream.acknowledge`."""
        commands: list[Command] = []
        told: list[Command] = []
        for producer, entry_ids, mark in settled:
            key = self._keys.events(producer)
            if entry_ids:
                commands.append(("XACK", key, GROUP, *entry_ids))
            if mark is not None:
                commands.append(("XTRIM", key, "MINID", "=", f"{mark.epoch}-{mark.seq + 1}"))
                fields = self._seal.sealed(producer, mark)
                told.append(("HSET", self._keys.watermark(producer), *chain.from_iterable(fields.items())))
        if not commands:
            return True
        # Trimming first: it makes the room that a full Redis lacks for the watermarks.
        replies = await self._connection.exchange([*commands, *told])
        for reply in replies:
            # What else stands in a stream's place is found by the next reading.
            if not (_is_full(reply) or _is_alien(reply)):
                _refuse(reply)
        for command, reply in zip(told, replies[len(commands) :], strict=True):
            if _is_alien(reply):
                await self._connection.exchange([("UNLINK", command[1]), command])
        return not any(map(_is_full, replies))

    async def publish_watermarks(self, watermarks: Mapping[str, Position]) -> bool:
        """See `EventStream.publish_watermarks`."""
        return await self.acknowledge([Acknowledgement(producer, (), mark) for producer, mark in watermarks.items()])


def _mark(reply: Any) -> OwnerMark | None:
    _refuse(reply)
    return None if reply is None else OwnerMark.parse(reply.decode("utf-8", "replace"))


def _entry(item: Any) -> Entry:
    entry_id, fields = item
    return Entry(entry_id.decode(), None if fields is None else dict(zip(fields[::2], fields[1::2], strict=True)))


def _ends(reply: Any) -> tuple[Position, Entry | None]:
    """Read what XINFO STREAM answered: the last id given, and the last entry kept."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    last_entry = fields[b"last-entry"]
    return Position.parse(fields[b"last-generated-id"].decode()), _entry(last_entry) if last_entry else None


def _is_full(reply: Any) -> bool:
    """Whether Redis refused for want of memory: reading, acknowledging, trimming and removing it never does."""
    return isinstance(reply, Refusal) and reply.text.startswith("OOM ")


def _is_alien(reply: Any) -> bool:
    """Whether a key holds something of another kind than what we put there."""
    return isinstance(reply, Refusal) and reply.text.startswith("WRONGTYPE ")


def _refuse(reply: Any) -> None:
    if not isinstance(reply, Refusal):
        return
    text = reply.text
    if text.startswith(("NOGROUP", "UNBLOCKED")) or _NO_KEY_FOR_GROUP in text:
        raise GroupMissingError(f"Redis forgot a stream: {text}")
    raise StreamRefusedError(f"Redis refused: {meaning(text).sentence}")
