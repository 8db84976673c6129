"""The road between producers and the consumer: one Redis stream per producer.

Invariants of every `EventStream`:

- After any `StreamError` nothing is sent again on the same connection, and no connection comes back by
  itself: the caller connects, and thereby knows that it has to ask what the other side still has.
- `append` without `create` never makes a stream, and the consumer never makes one either. So a stream that
  exists was begun by a producer that had just asked, and a forgotten one cannot silently grow a hole.
- Only Redis' own text for "equal or smaller id" counts as already there.

This is the only file that imports redis. It uses one bare connection and the wire's own reply shapes
(RESP2), because a client that reconnects or retries on its own would break the first invariant.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.errors import GroupMissingError, StreamAwayError, StreamError, StreamRefusedError

PRODUCERS_KEY: Final = "recollect:producers"
GROUP: Final = "archive"
# One name for every consumer: the lease lets one at a time in, and its successor inherits what is pending.
_CONSUMER: Final = "archive"

_ALREADY_THERE = "equal or smaller than the target stream top item"
_NO_SUCH_KEY = "no such key"
_NO_KEY_FOR_GROUP = "requires the key to exist"
_READ_SIZE_BYTES = 256 * 1024
_MOST_PATIENT = 8

_Argument: TypeAlias = str | bytes | int | float
_Command: TypeAlias = Sequence[_Argument]


def events_key(producer: str) -> str:
    """Name a producer's stream; the braces let streams spread over a Redis Cluster."""
    return f"recollect:events:{{{producer}}}"


def watermark_key(producer: str) -> str:
    """Name the hash that says how far a producer's events are archived."""
    return f"recollect:watermark:{{{producer}}}"


class Appended(Enum):
    """What became of a batch."""

    ADDED = "added"
    ALREADY_THERE = "already there"
    NO_STREAM = "no stream"


class StreamState(NamedTuple):
    """What Redis has of a producer: the last id it gave (None: no stream), that entry if kept, the watermark."""

    last: Position | None
    tail: Entry | None
    watermark: Position | None


class Delivered(NamedTuple):
    """Entries of one producer, in the order of the stream."""

    producer: str
    entries: Sequence[Entry]


class Settled(NamedTuple):
    """Entries of one producer whose events are committed, and how far its archive now reaches."""

    producer: str
    entry_ids: Sequence[str]
    watermark: Position | None


class EventStream(Protocol):
    """Both ends of the road; a process uses one object for one end. Every method may raise StreamError."""

    async def connect(self) -> None:
        """Drop whatever connection there is and make a new one."""

    async def close(self) -> None:
        """Drop the connection; never raises."""

    async def inspect(self, producer: str, unix_s: float) -> StreamState:
        """Announce a producer and ask what is there of it: the handshake."""

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        """Add a batch as one entry; with `create` the stream may come into being."""

    async def producers(self) -> list[str]:
        """List every producer that ever announced itself."""

    async def join(self, producers: Sequence[str]) -> set[str]:
        """See to it that the group exists on each stream; returns those that have a stream."""

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        """Read entries of joined producers.

        Those delivered before and not settled (`pending`, without waiting), or new ones, waiting up to
        `block_ms`; at most `max_entries` for each producer. Raises GroupMissingError when Redis forgot.
        """

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Acknowledge entries, publish the watermarks, and trim what lies at or below them."""

    async def publish(self, watermarks: Mapping[str, Position]) -> None:
        """Publish watermarks again, because Redis may have lost them."""


class RedisStream:
    """The real one.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: How long an answer may take, blocking time aside, before the connection is dropped; after one that
            took longer, up to eight times as long, until answers are quick again.

    Raises:
        StreamError: The address is not one of Redis.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError:
            # The address may hold a password, so it is not repeated.
            raise StreamError("the Redis address is not a redis://, rediss:// or unix:// URL") from None
        self._connection_class: type[AbstractConnection] = options.pop("connection_class", Connection)
        self._options = options
        self._timeout_s = timeout_s
        self._deadline_s = timeout_s
        self._connection: AbstractConnection | None = None

    def __repr__(self) -> str:
        return f"<RedisStream {'connected' if self._connection is not None else 'closed'}>"

    async def connect(self) -> None:
        """See `EventStream.connect`."""
        await self.close()
        connection = self._connection_class(
            **self._options,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            # The deadline around each exchange is the only one.
            socket_timeout=None,
            socket_connect_timeout=self._timeout_s,
            socket_read_size=_READ_SIZE_BYTES,
            driver_info=None,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                # connect() itself is not annotated; this is the part of it that has no retries.
                await connection.connect_check_health(check_health=False, retry_socket_connect=False)
        except TimeoutError:
            await _drop(connection)
            raise StreamAwayError(f"Redis did not answer within {self._timeout_s:g} s") from None
        except (RedisError, OSError) as error:
            await _drop(connection)
            raise StreamAwayError(f"Redis cannot be reached: {error}") from None
        except BaseException:
            await _drop(connection)
            raise
        self._connection = connection

    async def close(self) -> None:
        """See `EventStream.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _drop(connection)

    async def inspect(self, producer: str, unix_s: float) -> StreamState:
        """See `EventStream.inspect`."""
        announced, stream, watermark = await self._exchange(
            [
                ("ZADD", PRODUCERS_KEY, unix_s, producer),
                ("XINFO", "STREAM", events_key(producer)),
                ("HMGET", watermark_key(producer), "epoch", "seq"),
            ]
        )
        _refuse(announced)
        _refuse(watermark)
        mark = None if None in watermark else Position(int(watermark[0]), int(watermark[1]))
        if isinstance(stream, ResponseError) and _NO_SUCH_KEY in str(stream):
            return StreamState(None, None, mark)
        _refuse(stream)
        fields = dict(zip(stream[::2], stream[1::2], strict=True))
        last_entry = fields[b"last-entry"]
        return StreamState(
            Position.parse(fields[b"last-generated-id"].decode()),
            _entry(last_entry) if last_entry else None,
            mark,
        )

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        """See `EventStream.append`."""
        command: list[_Argument] = ["XADD", events_key(producer)]
        if not create:
            command.append("NOMKSTREAM")
        command.append(batch.entry_id)
        for name, value in to_fields(batch).items():
            command += (name, value)
        (reply,) = await self._exchange([command])
        if isinstance(reply, ResponseError) and _ALREADY_THERE in str(reply):
            return Appended.ALREADY_THERE
        _refuse(reply)
        return Appended.NO_STREAM if reply is None else Appended.ADDED

    async def producers(self) -> list[str]:
        """See `EventStream.producers`."""
        (reply,) = await self._exchange([("ZRANGE", PRODUCERS_KEY, 0, -1)])
        _refuse(reply)
        # Ours are UUIDs; what else somebody put there has no stream of ours.
        return [name.decode() for name in reply if name.isascii()]

    async def join(self, producers: Sequence[str]) -> set[str]:
        """See `EventStream.join`."""
        if not producers:
            return set()
        # From 0, because what was there before the group belongs to the archive too.
        replies = await self._exchange([("XGROUP", "CREATE", events_key(name), GROUP, "0") for name in producers])
        joined = set()
        for name, reply in zip(producers, replies, strict=True):
            text = str(reply)
            if isinstance(reply, ResponseError) and _NO_KEY_FOR_GROUP in text:
                continue
            if not text.startswith("BUSYGROUP"):
                _refuse(reply)
            joined.add(name)
        return joined

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        """See `EventStream.read`."""
        command: list[_Argument] = ["XREADGROUP", "GROUP", GROUP, _CONSUMER, "COUNT", max_entries]
        if not pending:
            command += ("BLOCK", block_ms)
        names = {events_key(name).encode(): name for name in producers}
        command += ("STREAMS", *names, *(["0" if pending else ">"] * len(names)))
        (reply,) = await self._exchange([command], extra_s=0 if pending else block_ms / 1000)
        _refuse(reply)
        if reply is None:
            return []
        return [Delivered(names[key], [_entry(item) for item in items]) for key, items in reply if items]

    async def settle(self, settled: Sequence[Settled]) -> None:
        """See `EventStream.settle`."""
        commands: list[_Command] = []
        for producer, entry_ids, mark in settled:
            key = events_key(producer)
            if entry_ids:
                commands.append(("XACK", key, GROUP, *entry_ids))
            if mark is not None:
                commands.append(("HSET", watermark_key(producer), "epoch", mark.epoch, "seq", mark.seq))
                commands.append(("XTRIM", key, "MINID", "=", f"{mark.epoch}-{mark.seq + 1}"))
        if commands:
            for reply in await self._exchange(commands):
                _refuse(reply)

    async def publish(self, watermarks: Mapping[str, Position]) -> None:
        """See `EventStream.publish`."""
        await self.settle([Settled(producer, (), mark) for producer, mark in watermarks.items()])

    async def _exchange(self, commands: Sequence[_Command], *, extra_s: float = 0.0) -> list[Any]:
        """Send commands and read one reply for each; error replies come back as values."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise StreamAwayError("there is no connection to Redis")
        packed = [chunk for command in commands for chunk in connection.pack_command(*command)]
        replies: list[Any] = []
        deadline_s = self._deadline_s + extra_s
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(error)
        except TimeoutError:
            await self.close()
            # Perhaps the link is only slow: one that never got the time for a large entry would never get past it.
            self._deadline_s = min(2 * self._deadline_s, _MOST_PATIENT * self._timeout_s)
            raise StreamAwayError(f"Redis did not answer within {deadline_s:g} s") from None
        except (RedisError, OSError) as error:
            await self.close()
            raise StreamAwayError(f"the connection to Redis broke: {error}") from None
        except BaseException:
            # Cancelled between a command and its reply: the next caller must never read this reply.
            await self.close()
            raise
        if time.monotonic() - started_s - extra_s < self._timeout_s / 2:
            self._deadline_s = self._timeout_s
        return replies


async def _drop(connection: AbstractConnection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError):
        # It is gone either way.
        return


def _entry(item: Any) -> Entry:
    entry_id, fields = item
    return Entry(entry_id.decode(), None if fields is None else dict(zip(fields[::2], fields[1::2], strict=True)))


def _refuse(reply: Any) -> None:
    if not isinstance(reply, ResponseError):
        return
    text = str(reply)
    if text.startswith(("NOGROUP", "UNBLOCKED")) or _NO_KEY_FOR_GROUP in text:
        raise GroupMissingError(f"Redis forgot a stream: {text}")
    raise StreamRefusedError(f"Redis refused: {text}")
