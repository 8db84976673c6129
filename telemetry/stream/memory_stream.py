"""The event stream without Redis, for tests; it passes the same contract tests.

Invariant: a `MemoryStream` answers as Redis would, ids, groups and trimming included.
"""

import asyncio
from collections.abc import Mapping, Sequence

from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.errors import GroupMissingError, StreamAwayError, StreamRefusedError
from telemetry.stream.event_stream import Appended, CommittedEntries, Delivered, GroupsEnsured, StreamEnds, StreamState
from telemetry.stream.namespace_owner import OwnerMark
from telemetry.stream.watermark_seal import VerifiedWatermark


class _ProducerStream:
    def __init__(self) -> None:
        self.last = Position(0, 0)
        self.entries: dict[Position, Entry] = {}
        self.delivered: Position | None = None
        self.pending: set[Position] = set()


class MemoryServer:
    """The server that several streams share.

    Attributes:
        reachable: Whether connections reach it.
        full: Whether it is out of memory and refuses what needs more.
        streams: The stream of each producer.
        forged: Producers whose watermark is forged, until the next one is published.
    """

    def __init__(self) -> None:
        self.reachable = True
        self.full = False
        self.announced: dict[str, float] = {}
        self.streams: dict[str, _ProducerStream] = {}
        self.watermarks: dict[str, Position] = {}
        self.forged: set[str] = set()
        self.mark: OwnerMark | None = None
        self.changed = asyncio.Event()

    def flush_all(self) -> None:
        """Lose everything."""
        self.announced.clear()
        self.streams.clear()
        self.watermarks.clear()
        self.mark = None
        self.notify()

    def notify(self) -> None:
        """Wake the readers that wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryStream:
    """An `EventStream` on a `MemoryServer`; each method as there."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._connected = False

    @property
    def where(self) -> str:
        return "the memory server"

    async def connect(self) -> None:
        self._connected = True
        self._check()

    async def close(self) -> None:
        self._connected = False

    async def read_mark(self) -> OwnerMark | None:
        self._check()
        return self._server.mark

    async def mark_if_unmarked(self, mark: OwnerMark) -> OwnerMark | None:
        self._check()
        if self._server.mark is None and not self._server.full:
            self._server.mark = mark
        return self._server.mark

    async def replace_mark(self, mark: OwnerMark) -> None:
        self._check()
        self._server.watermarks.clear()
        self._server.mark = mark

    async def handshake(self, producer: str, unix_s: float) -> StreamState:
        self._check()
        if not self._server.full:
            self._server.announced[producer] = unix_s
        stream = self._server.streams.get(producer)
        watermark = VerifiedWatermark(self._server.watermarks.get(producer))
        if producer in self._server.forged:
            watermark = VerifiedWatermark(None, "it was forged")
        if stream is None:
            return StreamState(None, None, *watermark, self._server.mark)
        tail = stream.entries[max(stream.entries)] if stream.entries else None
        return StreamState(stream.last, tail, *watermark, self._server.mark)

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        self._check()
        if self._server.full:
            raise StreamRefusedError("Redis refused: command not allowed when used memory > 'maxmemory'.")
        if producer not in self._server.streams:
            if not create:
                return Appended.NO_STREAM
            self._server.streams[producer] = _ProducerStream()
        stream = self._server.streams[producer]
        position = Position(batch.epoch, batch.last_seq)
        if position <= stream.last:
            return Appended.ALREADY_THERE
        stream.last = position
        stream.entries[position] = Entry(batch.entry_id, to_fields(batch))
        self._server.notify()
        return Appended.ADDED

    async def producers(self) -> dict[str, float]:
        self._check()
        return dict(self._server.announced)

    async def ensure_groups(self, producers: Sequence[str]) -> GroupsEnsured:
        self._check()
        found = GroupsEnsured(set(), set(), set())
        for name in producers:
            stream = self._server.streams.get(name)
            if stream is None:
                continue
            if stream.delivered is None and not self._server.full:
                stream.delivered = Position(0, 0)
            # Out of memory, Redis refuses even where the group exists.
            (found.unknown if self._server.full else found.ready).add(name)
        return found

    async def stream_ends(self, producers: Sequence[str]) -> dict[str, StreamEnds]:
        self._check()
        streams = {name: self._server.streams[name] for name in producers if name in self._server.streams}
        return {name: StreamEnds(stream.last, max(stream.entries, default=None)) for name, stream in streams.items()}

    async def remove_streams(self, producers: Sequence[str]) -> None:
        self._check()
        for name in producers:
            self._server.streams.pop(name, None)
        self._server.notify()

    async def scan(self, watermarks: Mapping[str, Position], *, max_entries: int) -> list[Delivered]:
        self._check()
        found = []
        for name, watermark in watermarks.items():
            stream = self._server.streams.get(name, _ProducerStream())
            positions = sorted(position for position in stream.entries if position > watermark)[:max_entries]
            if known := [position for position in positions if position.in_range]:
                found.append(Delivered(name, [stream.entries[position] for position in known]))
        return found

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        deadline_s = asyncio.get_running_loop().time() + block_ms / 1000
        while True:
            changed = self._server.changed
            delivered = self._read_now(producers, pending=pending, max_entries=max_entries)
            left_s = deadline_s - asyncio.get_running_loop().time()
            if delivered or pending or left_s <= 0:
                return delivered
            try:
                async with asyncio.timeout(left_s):
                    await changed.wait()
            except TimeoutError:
                return []

    def _read_now(self, producers: Sequence[str], *, pending: bool, max_entries: int) -> list[Delivered]:
        self._check()
        found = []
        for name in producers:
            stream = self._server.streams.get(name)
            if stream is None or stream.delivered is None:
                raise GroupMissingError(f"The stream of {name} is lost.")
            if pending:
                positions = sorted(stream.pending)[:max_entries]
            else:
                positions = sorted(one for one in stream.entries if one > stream.delivered)[:max_entries]
                stream.delivered = max([stream.delivered, *positions])
                stream.pending.update(positions)
            if positions:
                entries = [stream.entries.get(position, Entry(str(position), None)) for position in positions]
                found.append(Delivered(name, entries))
        return found

    async def acknowledge(self, acknowledgements: Sequence[CommittedEntries]) -> bool:
        self._check()
        for producer, entry_ids, watermark in acknowledgements:
            stream = self._server.streams.get(producer)
            if stream is not None:
                stream.pending.difference_update(map(Position.parse, entry_ids))
            if watermark is not None:
                if not self._server.full:
                    self._server.watermarks[producer] = watermark
                    self._server.forged.discard(producer)
                if stream is not None:
                    stream.entries = {at: entry for at, entry in stream.entries.items() if at > watermark}
        return not (self._server.full and any(watermark is not None for _, _, watermark in acknowledgements))

    def _check(self) -> None:
        if not self._server.reachable:
            self._connected = False
        if not self._connected:
            raise StreamAwayError("There is no connection to the memory server.")
