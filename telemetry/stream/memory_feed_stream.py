"""The feed of live state without Redis, for tests; it passes the same contract tests."""

import asyncio

from telemetry.batch import Position
from telemetry.errors import StreamAwayError, StreamRefusedError
from telemetry.stream.feed_stream import FeedEnds


class MemoryFeed:
    """The stream that several `MemoryFeedStream` share.

    Attributes:
        reachable: Whether connections reach it.
        full: Whether it has no room for entries.
        entries: By id; None if there is no stream.
        last: The last id that was used.
    """

    def __init__(self) -> None:
        self.reachable = True
        self.full = False
        self.entries: dict[Position, bytes] | None = None
        self.last = Position(0, 0)
        self.changed = asyncio.Event()

    def flush_all(self) -> None:
        """Lose everything."""
        self.entries, self.last = None, Position(0, 0)

    def add(self, position: Position, data: bytes, first_kept: Position) -> None:
        """Add an entry, remove those before another one, and wake the readers."""
        kept = {**(self.entries or {}), position: data}
        self.entries = {key: value for key, value in kept.items() if key >= first_kept}
        self.last = position
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryFeedStream:
    """A `FeedStream` on a `MemoryFeed`; each method as there."""

    def __init__(self, feed: MemoryFeed) -> None:
        self._feed = feed
        self._connected = False

    async def connect(self) -> None:
        self._connected = True
        self._check()

    async def close(self) -> None:
        self._connected = False

    async def ends(self) -> FeedEnds | None:
        self._check()
        entries = self._feed.entries
        return None if entries is None else FeedEnds(self._feed.last, min(entries, default=None), len(entries))

    async def append(self, position: Position, data: bytes, *, first_kept: int) -> bool:
        self._check(writes=True)
        if self._feed.entries is None or position <= self._feed.last:
            return False
        self._feed.add(position, data, Position(position.epoch, first_kept))
        return True

    async def begin(self, generation: int, data: bytes) -> None:
        self._check(writes=True)
        first = Position(generation, 1)
        if first <= self._feed.last:
            self._feed.flush_all()
        self._feed.add(first, data, first)

    async def read(self, after: Position, *, max_entries: int, block_ms: int) -> list[tuple[Position, bytes]]:
        changed = self._feed.changed
        found = self._read_now(after, max_entries)
        if found or block_ms <= 0:
            return found
        try:
            async with asyncio.timeout(block_ms / 1000):
                await changed.wait()
        except TimeoutError:
            return []
        return self._read_now(after, max_entries)

    def _read_now(self, after: Position, max_entries: int) -> list[tuple[Position, bytes]]:
        self._check()
        entries = self._feed.entries or {}
        return [(position, entries[position]) for position in sorted(entries) if position > after][:max_entries]

    def _check(self, *, writes: bool = False) -> None:
        if not (self._connected and self._feed.reachable):
            self._connected = False
            raise StreamAwayError("The memory feed is not connected.")
        if writes and self._feed.full:
            raise StreamRefusedError("Redis refused: it is full: its maxmemory is reached.")
