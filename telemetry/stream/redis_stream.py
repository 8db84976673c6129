"""The event stream in Redis: one Redis stream for each producer, one consumer group for the archive."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.errors import GroupMissingError, StreamRefusedError
from telemetry.stream.event_stream import Appended, CommittedEntries, Delivered, GroupsEnsured, StreamEnds, StreamState
from telemetry.stream.key_names import DEFAULT_NAMESPACE, KeyNames
from telemetry.stream.namespace_owner import OwnerMark
from telemetry.stream.redis_connection import Argument, Command, Refusal
from telemetry.stream.redis_link import RedisLink
from telemetry.stream.redis_refusals import refusal_meaning
from telemetry.stream.watermark_seal import FIELDS, Seal

GROUP: Final = "archive"
# One name for every consumer: the lease admits one at a time, and its successor inherits what is pending.
_CONSUMER: Final = "archive"

_READ: Final = ("XREADGROUP", "GROUP", GROUP, _CONSUMER)
# How often a Redis Cluster is asked for new entries.
_LEAST_PAUSE_S: Final = 0.002
_MOST_PAUSE_S: Final = 0.03

_ALREADY_THERE = "equal or smaller than the target stream top item"
_NO_SUCH_KEY = "no such key"
_NO_KEY_FOR_GROUP = "requires the key to exist"


class RedisStream:
    """An `EventStream` in Redis; each method as there.

    It writes and accepts watermarks with the installation's seal alone; `url` and `timeout_s` as in `RedisLink`.

    Raises:
        StreamError: The address or the namespace is invalid.
    """

    def __init__(
        self, url: str, namespace: str = DEFAULT_NAMESPACE, seal: Seal | None = None, *, timeout_s: float = 2.0
    ) -> None:
        self._seal = seal or Seal()
        self._keys = KeyNames(namespace)
        self._connection = RedisLink(url, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"<RedisStream {self._keys.namespace} {'connected' if self._connection.is_open else 'closed'}>"

    @property
    def where(self) -> str:
        return f"the namespace {self._keys.namespace} of the Redis at {self._connection.address}"

    async def connect(self) -> None:
        await self._connection.open()

    async def close(self) -> None:
        await self._connection.close()

    async def read_mark(self) -> OwnerMark | None:
        (reply,) = await self._connection.exchange([("GET", self._keys.owner)])
        return _mark(reply)

    async def mark_if_unmarked(self, mark: OwnerMark) -> OwnerMark | None:
        (reply,) = await self._connection.exchange([("SET", self._keys.owner, str(mark), "NX", "GET")])
        if _is_out_of_memory(reply):
            return None
        return _mark(reply) or mark

    async def replace_mark(self, mark: OwnerMark) -> None:
        watermarks = [("UNLINK", self._keys.watermark(producer)) for producer in await self.producers()]
        # One after the other: the nodes of a Redis Cluster work side by side.
        for commands in (watermarks, [("SET", self._keys.owner, str(mark))]):
            for reply in await self._connection.exchange(commands):
                _raise_if_refused(reply)

    async def handshake(self, producer: str, unix_s: float) -> StreamState:
        mark_reply, announced, stream, watermark = await self._connection.exchange(
            [
                ("GET", self._keys.owner),
                ("ZADD", self._keys.producers, unix_s, producer),
                ("XINFO", "STREAM", self._keys.events(producer)),
                ("HMGET", self._keys.watermark(producer), *FIELDS),
            ]
        )
        mark = _mark(mark_reply)
        if not _is_out_of_memory(announced):
            _raise_if_refused(announced)
        if _is_wrong_type(watermark):
            watermark = [b""] * len(FIELDS)
        _raise_if_refused(watermark)
        if not self._seal.has_key_of(watermark[-1]):
            # A new archive may have taken its place, with another key.
            self._seal = await asyncio.to_thread(self._seal.reloaded)
        verified = self._seal.verify(producer, *watermark)
        if isinstance(stream, Refusal) and _NO_SUCH_KEY in stream.text:
            return StreamState(None, None, *verified, mark)
        _raise_if_refused(stream)
        return StreamState(*_ends(stream), *verified, mark)

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        command: list[Argument] = ["XADD", self._keys.events(producer)]
        if not create:
            command.append("NOMKSTREAM")
        command.append(batch.entry_id)
        for name, value in to_fields(batch).items():
            command += (name, value)
        (reply,) = await self._connection.exchange([command])
        if isinstance(reply, Refusal) and _ALREADY_THERE in reply.text:
            return Appended.ALREADY_THERE
        _raise_if_refused(reply)
        return Appended.NO_STREAM if reply is None else Appended.ADDED

    async def producers(self) -> dict[str, float]:
        (reply,) = await self._connection.exchange([("ZRANGE", self._keys.producers, 0, -1, "WITHSCORES")])
        if _is_wrong_type(reply):
            # Every producer adds itself again with its next handshake.
            await self._connection.exchange([("UNLINK", self._keys.producers)])
            return {}
        _raise_if_refused(reply)
        # Producer ids are UUIDs; no other member has a stream.
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return {name.decode(): float(score) for name, score in pairs if name.isascii()}

    async def ensure_groups(self, producers: Sequence[str]) -> GroupsEnsured:
        found = GroupsEnsured(set(), set(), set())
        if not producers:
            return found
        # From 0: entries from before the group belong to the archive too.
        replies = await self._connection.exchange(
            [("XGROUP", "CREATE", self._keys.events(name), GROUP, "0") for name in producers]
        )
        for name, reply in zip(producers, replies, strict=True):
            if isinstance(reply, Refusal) and _NO_KEY_FOR_GROUP in reply.text:
                continue
            if _is_out_of_memory(reply):
                found.unknown.add(name)
                continue
            if _is_wrong_type(reply):
                found.wrong_type.add(name)
                continue
            if not (isinstance(reply, Refusal) and reply.text.startswith("BUSYGROUP")):
                _raise_if_refused(reply)
            found.ready.add(name)
        return found

    async def stream_ends(self, producers: Sequence[str]) -> dict[str, StreamEnds]:
        if not producers:
            return {}
        replies = await self._connection.exchange([("XINFO", "STREAM", self._keys.events(name)) for name in producers])
        found = {}
        for name, reply in zip(producers, replies, strict=True):
            if _is_wrong_type(reply) or (isinstance(reply, Refusal) and _NO_SUCH_KEY in reply.text):
                continue
            _raise_if_refused(reply)
            last, entry = _ends(reply)
            found[name] = StreamEnds(last, None if entry is None else Position.parse(entry.entry_id))
        return found

    async def remove_streams(self, producers: Sequence[str]) -> None:
        for reply in await self._connection.exchange([("UNLINK", self._keys.events(name)) for name in producers]):
            _raise_if_refused(reply)

    async def scan(self, watermarks: Mapping[str, Position], *, max_entries: int) -> list[Delivered]:
        found, keys = [], self._keys
        commands = [
            ("XRANGE", keys.events(name), f"({position}", "+", "COUNT", max_entries)
            for name, position in watermarks.items()
        ]
        for name, reply in zip(watermarks, await self._connection.exchange(commands), strict=True):
            if _is_wrong_type(reply):
                continue
            _raise_if_refused(reply)
            entries = [_entry(item) for item in reply]
            if known := [entry for entry in entries if Position.parse(entry.entry_id).in_range]:
                found.append(Delivered(name, known))
        return found

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        if self._connection.is_cluster:
            return await self._read_in_turn(producers, pending=pending, max_entries=max_entries, block_ms=block_ms)
        command: list[Argument] = [*_READ, "COUNT", max_entries]
        if not pending:
            command += ("BLOCK", block_ms)
        names = {self._keys.events(name).encode(): name for name in producers}
        command += ("STREAMS", *names, *(["0" if pending else ">"] * len(names)))
        (reply,) = await self._connection.exchange([command], extra_s=0 if pending else block_ms / 1000)
        _raise_if_refused(reply)
        if reply is None:
            return []
        return [Delivered(names[key], [_entry(item) for item in items]) for key, items in reply if items]

    async def _read_in_turn(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        """Read streams one by one: a Redis Cluster has no command, and so no wait, for keys of several slots."""
        deadline_s, pause_s = time.monotonic() + block_ms / 1000, _LEAST_PAUSE_S
        first = "0" if pending else ">"
        while True:
            replies = await self._connection.exchange(
                [(*_READ, "COUNT", max_entries, "STREAMS", self._keys.events(name), first) for name in producers]
            )
            found = []
            for name, reply in zip(producers, replies, strict=True):
                _raise_if_refused(reply)
                if reply is not None and reply[0][1]:
                    found.append(Delivered(name, [_entry(item) for item in reply[0][1]]))
            rest_s = deadline_s - time.monotonic()
            if found or pending or rest_s <= 0:
                return found
            await asyncio.sleep(min(pause_s, rest_s))
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)

    async def acknowledge(self, acknowledgements: Sequence[CommittedEntries]) -> bool:
        commands: list[Command] = []
        publications: list[Command] = []
        for producer, entry_ids, watermark in acknowledgements:
            key = self._keys.events(producer)
            if entry_ids:
                commands.append(("XACK", key, GROUP, *entry_ids))
            if watermark is not None:
                commands.append(("XTRIM", key, "MINID", "=", f"{watermark.epoch}-{watermark.seq + 1}"))
                fields = self._seal.sealed_fields(producer, watermark)
                publications.append(("HSET", self._keys.watermark(producer), *chain.from_iterable(fields.items())))
        if not commands:
            return True
        # Trimming first makes the room for the watermarks in a Redis that is out of memory.
        replies = await self._connection.exchange([*commands, *publications])
        for reply in replies:
            # A key of the wrong type in a stream's place is found by the next read.
            if not (_is_out_of_memory(reply) or _is_wrong_type(reply)):
                _raise_if_refused(reply)
        for command, reply in zip(publications, replies[len(commands) :], strict=True):
            if _is_wrong_type(reply):
                await self._connection.exchange([("UNLINK", command[1]), command])
        return not any(map(_is_out_of_memory, replies))


def _mark(reply: Any) -> OwnerMark | None:
    _raise_if_refused(reply)
    return None if reply is None else OwnerMark.parse(reply.decode("utf-8", "replace"))


def _entry(item: Any) -> Entry:
    entry_id, fields = item
    return Entry(entry_id.decode(), None if fields is None else dict(zip(fields[::2], fields[1::2], strict=True)))


def _ends(reply: Any) -> tuple[Position, Entry | None]:
    """Return the last id and the last kept entry of a reply to XINFO STREAM."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    last_entry = fields[b"last-entry"]
    return Position.parse(fields[b"last-generated-id"].decode()), _entry(last_entry) if last_entry else None


def _is_out_of_memory(reply: Any) -> bool:
    """Whether Redis refused because it is out of memory; only writes that need more are refused so."""
    return isinstance(reply, Refusal) and reply.text.startswith("OOM ")


def _is_wrong_type(reply: Any) -> bool:
    """Whether a key holds another type than the one written there."""
    return isinstance(reply, Refusal) and reply.text.startswith("WRONGTYPE ")


def _raise_if_refused(reply: Any) -> None:
    if not isinstance(reply, Refusal):
        return
    text = reply.text
    if text.startswith(("NOGROUP", "UNBLOCKED")) or _NO_KEY_FOR_GROUP in text:
        raise GroupMissingError(f"Redis lost a stream: {text.rstrip('.')}.")
    raise StreamRefusedError(f"Redis refused: {refusal_meaning(text).clause.rstrip('.')}.")
