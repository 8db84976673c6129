"""The stream without Redis: for tests and for trying things out, held to the same contract tests.

Invariant: what one `MemoryStream` sees is what Redis would answer, ids, groups and trimming included.
"""

import asyncio
from collections.abc import Mapping, Sequence

from telemetry.batch import Batch, Entry, Position, to_fields
from telemetry.errors import GroupMissingError, StreamAwayError, StreamRefusedError
from telemetry.stream.namespace_owner import OwnerMark
from telemetry.stream.redis_stream import Acknowledgement, Appended, Delivered, GroupsEnsured, StreamEnds, StreamState
from telemetry.stream.watermark_seal import Watermark


class _Log:
    def __init__(self) -> None:
        self.last = Position(0, 0)
        self.entries: dict[Position, Entry] = {}
        self.delivered: Position | None = None
        self.pending: set[Position] = set()


class MemoryServer:
    """What several streams share.

    Attributes:
        reachable: Its network cable.
        full: Whether it is at its limit of memory: what needs more is refused.
        forged: Producers with something else in their watermark's place, until the next one is published.
    """

    def __init__(self) -> None:
        self.reachable = True
        self.full = False
        self.announced: dict[str, float] = {}
        self.logs: dict[str, _Log] = {}
        self.watermarks: dict[str, Position] = {}
        self.forged: set[str] = set()
        self.mark: OwnerMark | None = None
        self.changed = asyncio.Event()

    def flush_all(self) -> None:
        """Lose everything."""
        self.announced.clear()
        self.logs.clear()
        self.watermarks.clear()
        self.mark = None
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryStream:
    """An `EventStream` on a `MemoryServer`; each method as there.

    Args:
        server: What is shared.
    """

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._connected = False

    @property
    def where(self) -> str:
        """See `EventStream.where`."""
        return "the memory server"

    async def connect(self) -> None:
        """See `EventStream.connect`."""
        self._connected = True
        self._check()

    async def close(self) -> None:
        """See `EventStream.close`."""
        self._connected = False

    async def read_mark(self) -> OwnerMark | None:
        """See `EventStream.read_mark`."""
        self._check()
        return self._server.mark

    async def mark_if_unmarked(self, mark: OwnerMark) -> OwnerMark | None:
        """See `EventStream.mark_if_unmarked`."""
        self._check()
        if self._server.mark is None and not self._server.full:
            self._server.mark = mark
        return self._server.mark

    async def replace_mark(self, mark: OwnerMark) -> None:
        """See `EventStream.replace_mark`."""
        self._check()
        self._server.watermarks.clear()
        self._server.mark = mark

    async def handshake(self, producer: str, unix_s: float) -> StreamState:
        """See `EventStream.handshake`."""
        self._check()
        if not self._server.full:
            self._server.announced[producer] = unix_s
        log = self._server.logs.get(producer)
        mark = Watermark(self._server.watermarks.get(producer))
        if producer in self._server.forged:
            mark = Watermark(None, "it was forged")
        if log is None:
            return StreamState(None, None, *mark, self._server.mark)
        tail = log.entries[max(log.entries)] if log.entries else None
        return StreamState(log.last, tail, *mark, self._server.mark)

    async def append(self, producer: str, batch: Batch, *, create: bool) -> Appended:
        """See `EventStream.append`."""
        self._check()
        if self._server.full:
            raise StreamRefusedError("Redis refused: command not allowed when used memory > 'maxmemory'.")
        if producer not in self._server.logs:
            if not create:
                return Appended.NO_STREAM
            self._server.logs[producer] = _Log()
        log = self._server.logs[producer]
        position = Position(batch.epoch, batch.last_seq)
        if position <= log.last:
            return Appended.ALREADY_THERE
        log.last = position
        log.entries[position] = Entry(batch.entry_id, to_fields(batch))
        self._server.notify()
        return Appended.ADDED

    async def producers(self) -> dict[str, float]:
        """See `EventStream.producers`."""
        self._check()
        return dict(self._server.announced)

    async def ensure_groups(self, producers: Sequence[str]) -> GroupsEnsured:
        """See `EventStream.ensure_groups`."""
        self._check()
        joined = GroupsEnsured.none()
        for name in producers:
            log = self._server.logs.get(name)
            if log is None:
                continue
            if log.delivered is None and not self._server.full:
                log.delivered = Position(0, 0)
            # It is refused even where the group is there already.
            (joined.bare if self._server.full else joined.ready).add(name)
        return joined

    async def stream_ends(self, producers: Sequence[str]) -> dict[str, StreamEnds]:
        """See `EventStream.stream_ends`."""
        self._check()
        logs = {name: self._server.logs[name] for name in producers if name in self._server.logs}
        return {name: StreamEnds(log.last, max(log.entries, default=None)) for name, log in logs.items()}

    async def remove_streams(self, producers: Sequence[str]) -> None:
        """See `EventStream.remove_streams`."""
        self._check()
        for name in producers:
            self._server.logs.pop(name, None)
        self._server.notify()

    async def scan(self, watermarks: Mapping[str, Position], *, max_entries: int) -> list[Delivered]:
        """See `EventStream.scan`."""
        self._check()
        found = []
        for name, mark in watermarks.items():
            log = self._server.logs.get(name, _Log())
            positions = sorted(position for position in log.entries if position > mark)[:max_entries]
            if known := [position for position in positions if position.in_range]:
                found.append(Delivered(name, [log.entries[position] for position in known]))
        return found

    async def read(
        self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int
    ) -> list[Delivered]:
        """See `EventStream.read`."""
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
            log = self._server.logs.get(name)
            if log is None or log.delivered is None:
                raise GroupMissingError(f"the stream of {name} is forgotten")
            if pending:
                positions = sorted(log.pending)[:max_entries]
            else:
                positions = sorted(position for position in log.entries if position > log.delivered)[:max_entries]
                log.delivered = max([log.delivered, *positions])
                log.pending.update(positions)
            if positions:
                entries = [log.entries.get(position, Entry(str(position), None)) for position in positions]
                found.append(Delivered(name, entries))
        return found

    async def acknowledge(self, settled: Sequence[Acknowledgement]) -> bool:
        """See `EventStream.acknowledge`."""
        self._check()
        for producer, entry_ids, mark in settled:
            log = self._server.logs.get(producer)
            if log is not None:
                log.pending.difference_update(map(Position.parse, entry_ids))
            if mark is not None:
                if not self._server.full:
                    self._server.watermarks[producer] = mark
                    self._server.forged.discard(producer)
                if log is not None:
                    log.entries = {at: entry for at, entry in log.entries.items() if at > mark}
        return not (self._server.full and any(mark is not None for _, _, mark in settled))

    async def publish_watermarks(self, watermarks: Mapping[str, Position]) -> bool:
        """See `EventStream.publish_watermarks`."""
        return await self.acknowledge([Acknowledgement(producer, (), mark) for producer, mark in watermarks.items()])

    def _check(self) -> None:
        if not self._server.reachable:
            self._connected = False
        if not self._connected:
            raise StreamAwayError("there is no connection to the memory server")
