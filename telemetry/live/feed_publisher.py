"""Publishes the feed of live state: a queue, and a task that appends it to the stream.

Invariants:

- What is offered is in the stream in order, or the publisher asks for a new generation (`broken`), and no caller
  waits for Redis. The caller then saves a snapshot that includes everything offered so far, and releases the next
  generation.
- Every second the marks of all producers are appended, and the stream is compared with what was appended to it: one
  that lost entries is as good as none.
- Until the first generation of a lease the stream that is there is continued, without marks: its followers get new
  events at once, and later the snapshot with what they missed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from telemetry.batch import Position
from telemetry.counters import LiveCounters
from telemetry.errors import StreamAwayError, StreamError
from telemetry.failpoints import Failpoints
from telemetry.live.feed_entry import FeedEntry, encode_entry
from telemetry.notes import FeedAway, FeedBegun, Observer, notify
from telemetry.stream.feed_stream import FeedStream

_FIRST_BACKOFF_S: Final = 0.05
_LONGEST_BACKOFF_S: Final = 1.0
# More events wait only where Redis is away; then a snapshot is cheaper.
_MOST_QUEUED: Final = 50_000
_EVENTS_PER_ENTRY: Final = 2_000
# What an entry takes in Redis besides its data.
_ENTRY_BYTES: Final = 64


class FeedPublisher:
    """The writing end of the feed.

    Args:
        marks: Returns how far each producer is archived, of what was offered.
        allowed: Set while the namespace in Redis is the archive's.
        feed_bytes: How much the stream holds before its oldest entries are removed.
        heartbeat_s: How often an entry is appended at least.

    Attributes:
        begun: Set while the stream is of a generation of this publisher.
        broken: Set when a new generation is needed.
        unsaved_bytes: The bytes appended since the last snapshot.
    """

    def __init__(
        self,
        stream: FeedStream,
        marks: Callable[[], Mapping[str, Position]],
        allowed: asyncio.Event,
        counters: LiveCounters,
        *,
        feed_bytes: int,
        heartbeat_s: float = 1.0,
        observer: Observer | None = None,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._stream = stream
        self._marks = marks
        self._allowed = allowed
        self._counters = counters
        self._feed_bytes = feed_bytes
        self._heartbeat_s = heartbeat_s
        self._observer = observer
        self._failpoints = failpoints or Failpoints()
        self._queue: deque[FeedEntry] = deque()
        self._queued_events = 0
        self._wake = asyncio.Event()
        # The size of each entry in the stream, as far as this publisher appended it.
        self._sizes: deque[int] = deque()
        self._kept_bytes = 0
        # Whether the stream holds entries of this publisher only.
        self._trims = False
        # An entry whose append was not confirmed.
        self._in_flight: bytes | None = None
        # The last entry of the stream; None before the first look.
        self._last: Position | None = None
        # The generation to begin, and whether its snapshot is saved.
        self._next: int | None = None
        self._released = False
        self._begun = False
        self._away = False
        self._backoff_s = _FIRST_BACKOFF_S
        self._next_look_s = 0.0
        self.begun = asyncio.Event()
        self.broken = asyncio.Event()
        self.unsaved_bytes = 0

    @property
    def snapshot_position(self) -> Position:
        """The position of a snapshot that includes everything offered so far."""
        if self._next is not None:
            return Position(self._next, 0)
        return self._last or Position(0, 0)

    def offer(self, entry: FeedEntry) -> None:
        """Queue an entry; its snapshot must include it from now on."""
        self._queue.append(entry)
        self._queued_events += len(entry.events) + len(entry.item_lines) + len(entry.erased)
        if self._queued_events > _MOST_QUEUED:
            self._break()
        self._wake.set()

    def restart(self, previous: int) -> int:
        """Plan a new generation, at the moment to which its snapshot belongs: what is queued will be in it.

        Args:
            previous: The generation of the last snapshot; the new one is larger.

        Returns:
            The generation.
        """
        last = 0 if self._last is None else self._last.epoch
        # A new one each time: the one that was planned may have begun, unconfirmed, without what is removed here.
        self._next = max(int(time.time() * 1000), previous + 1, last + 1, (self._next or 0) + 1)
        self._clear()
        self._released = False
        self.begun.clear()
        self.broken.clear()
        return self._next

    def release(self) -> None:
        """Begin the planned generation: its snapshot is saved."""
        self._released = True
        self._wake.set()

    def saved(self) -> None:
        """Note that a snapshot was saved."""
        self.unsaved_bytes = 0

    async def run(self) -> None:
        """Publish until cancelled."""
        try:
            while True:
                await self._allowed.wait()
                try:
                    await self._stream.connect()
                    await self._look()
                    while True:
                        await self._step()
                except StreamError as error:
                    self._disconnected(error)
                except Exception as error:  # noqa: BLE001 - a fault of the feed must not stop the archive
                    self._break()
                    self._disconnected(error)
                await asyncio.sleep(self._backoff_s)
                self._backoff_s = min(2 * self._backoff_s, _LONGEST_BACKOFF_S)
        finally:
            self._counters.feed_connected = False
            await self._stream.close()

    async def _step(self) -> None:
        """Append what is queued, or wait for it; every second look at the stream."""
        now_s = time.monotonic()
        if not self._allowed.is_set():
            raise StreamAwayError("The consumer does not hold the namespace in Redis.")
        if self._next is not None and self._released:
            await self._begin(self._next)
        elif now_s >= self._next_look_s:
            self._next_look_s = now_s + self._heartbeat_s
            await self._look()
            if self._can_append:
                # It follows all that was offered.
                self._queue.append(FeedEntry(marks=self._marks()))
        elif self._queue and self._can_append:
            await self._append()
        else:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_look_s - now_s):
                    await self._wake.wait()

    @property
    def _can_append(self) -> bool:
        return self._next is None and self._last is not None and not self.broken.is_set()

    async def _begin(self, generation: int) -> None:
        data = encode_entry(FeedEntry())
        await self._stream.begin(generation, data)
        self._failpoints.hit("live.begun")
        if self._next != generation:
            # A later snapshot is being saved, and needs a later one.
            return
        self._next, self._begun, self._trims, self._in_flight = None, True, True, None
        self._last = Position(generation, 1)
        self._sizes.clear()
        self._kept_bytes = 0
        self._note_appended(data)
        if not self.broken.is_set():
            self.begun.set()
        self._counters.generation = generation
        self._counters.generations += 1
        notify(self._observer, FeedBegun(generation))

    async def _append(self) -> None:
        last = self._last or Position(0, 0)
        data = encode_entry(self._take()) if self._in_flight is None else self._in_flight
        self._in_flight = data
        while self._sizes and self._kept_bytes + len(data) > self._feed_bytes:
            self._kept_bytes -= self._sizes.popleft()
            self._trims = True
        position = Position(last.epoch, last.seq + 1)
        first_kept = position.seq - len(self._sizes) if self._trims else 0
        if not await self._stream.append(position, data, first_kept=first_kept):
            self._break()
            return
        self._failpoints.hit("live.published")
        if self._next is None:
            self._last, self._in_flight = position, None
            self._note_appended(data)

    def _take(self) -> FeedEntry:
        """Take entries from the queue, joined into one."""
        taken = self._queue.popleft()
        events, erased, lines = list(taken.events), list(taken.erased), list(taken.item_lines)
        marks = dict(taken.marks)
        while self._queue and len(events) + len(lines) < _EVENTS_PER_ENTRY:
            entry = self._queue.popleft()
            events += entry.events
            erased += entry.erased
            lines += entry.item_lines
            marks.update(entry.marks)
        self._queued_events -= len(events) + len(lines) + len(erased)
        # A follower of an earlier lease's entries may have missed some, so that it has reached no mark.
        return FeedEntry(events, erased, lines, marks if self._begun else {})

    async def _look(self) -> None:
        """Compare the stream with what was appended to it."""
        if self._next is not None or self.broken.is_set():
            return
        ends = await self._stream.ends()
        if not self._begun:
            # There may be no stream yet; the first generation begins one.
            self._last = None if ends is None else ends.last
            return
        last = self._last or Position(0, 0)
        if self._in_flight is not None and ends is not None and ends.last == Position(last.epoch, last.seq + 1):
            # It had arrived, and its confirmation was lost.
            self._last = last = ends.last
            self._note_appended(self._in_flight)
            self._in_flight = None
        first = Position(last.epoch, last.seq - len(self._sizes) + 1)
        if ends is None or ends.last != last or ends.first_kept != first or ends.length != len(self._sizes):
            self._break()

    def _note_appended(self, data: bytes) -> None:
        # A full Redis answers and refuses entries, so that only an entry ends an outage.
        self._backoff_s, self._away = _FIRST_BACKOFF_S, False
        self._counters.feed_connected = True
        self._sizes.append(len(data) + _ENTRY_BYTES)
        self._kept_bytes += self._sizes[-1]
        self.unsaved_bytes += self._sizes[-1]
        self._counters.feed_entries += 1
        self._counters.feed_bytes += len(data)

    def _break(self) -> None:
        """Give up the present generation: a snapshot replaces what could not be appended."""
        self._clear()
        # A planned generation waits for a later snapshot.
        self._released = False
        self.begun.clear()
        self.broken.set()

    def _clear(self) -> None:
        self._queue.clear()
        self._queued_events = 0
        self._in_flight = None

    def _disconnected(self, error: Exception) -> None:
        self._counters.feed_connected = False
        if not self._away:
            self._away = True
            notify(self._observer, FeedAway(str(error)))
