"""The task of a replica that follows the feed of live state and applies it.

Invariants: the state is that of the last snapshot and every feed entry since, in order; the reader sees to it. The feed
is read only while the namespace in Redis is this installation's. What else follows the feed, such as the item
catalogue, gets the same batches in the same order from a task of its own, so that it delays no list.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog

from service.live.live_state import LiveState
from telemetry.errors import StreamError
from telemetry.live.live_event import LiveEvent
from telemetry.live.live_feed_reader import FeedBatch

_log = structlog.get_logger("recollect.live")
_FIRST_BACKOFF_S: Final = 0.05
_LONGEST_BACKOFF_S: Final = 0.5
_BLOCK_MS: Final = 1_000
_NOT_OURS_S: Final = 0.05
# Between two pieces requests are answered.
_EVENTS_PER_PIECE: Final = 250
_MS_PER_S: Final = 1000


class Reader(Protocol):
    """The feed as a replica reads it; `LiveFeedReader` is one."""

    async def connect(self) -> None:
        """Connect anew; may raise StreamError."""

    async def close(self) -> None:
        """Close the connection; never raises."""

    async def read(self, block_ms: int = ...) -> FeedBatch:
        """Return what is new; the first call returns a snapshot. May raise StreamError."""


class FeedFollower:
    """Applies the feed to a replica's live state.

    Args:
        reader: Used by this object alone.
        state: The live state.
        may_follow: Whether the namespace is this installation's.
        on_batch: Awaited with each batch once its events are applied, as for changes of items.
        on_delay: Called with the seconds from the receipt of an event to its application.

    Attributes:
        connected: Whether the feed can be read now.
        last_entry_s: Monotonic time of the last entry, heartbeats included; None before the first one.
    """

    def __init__(
        self,
        reader: Reader,
        state: LiveState,
        *,
        may_follow: Callable[[], bool] = lambda: True,
        on_batch: Callable[[FeedBatch], Awaitable[None]] | None = None,
        on_delay: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._reader = reader
        self._state = state
        self._may_follow = may_follow
        self._on_batch = on_batch
        self._on_delay = on_delay
        self._batches: asyncio.Queue[FeedBatch | None] = asyncio.Queue()
        self._at_end = False
        self._caught_up = asyncio.Event()
        self._reported: type[Exception] | None = None
        self.connected = False
        self.last_entry_s: float | None = None

    @property
    def silent_s(self) -> float:
        """Seconds since the last entry; 0 before the first one."""
        return 0.0 if self.last_entry_s is None else time.monotonic() - self.last_entry_s

    async def run(self) -> None:
        """Follow the feed until cancelled, through any outage of Redis."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(), name="live feed reader")
            group.create_task(self._pass_on(), name="live feed followers")

    async def _read(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        try:
            # The snapshot needs no Redis.
            await self._apply(await self._reader.read())
            while True:
                try:
                    await self._reader.connect()
                    while True:
                        await self._follow()
                        backoff_s = _FIRST_BACKOFF_S
                except StreamError as error:
                    self._disconnected(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
        finally:
            self.connected = False
            await self._reader.close()

    async def wait_until_caught_up(self, timeout_s: float) -> None:
        """Wait until the feed was read to its end once, or Redis does not answer, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._caught_up.wait()

    async def _follow(self) -> None:
        if not self._may_follow():
            await asyncio.sleep(_NOT_OURS_S)
            return
        batch = await self._reader.read(_BLOCK_MS if self._at_end else 0)
        self.connected = True
        self._reported = None
        await self._apply(batch)
        if batch.snapshot is None and not batch.entries and not batch.waits:
            self._reached_end()

    async def _apply(self, batch: FeedBatch) -> None:
        if batch.snapshot is not None:
            # The one before is not closed: other threads may read it. Its memory is unmapped with its last reference.
            self._state.load(batch.snapshot)
            while self._state.drop_covered():  # noqa: ASYNC110 - it does the work itself, piece by piece
                await asyncio.sleep(0)
        if batch.entries:
            *pieces, last = _pieces(batch.events)
            for piece in pieces:
                self._state.apply_part(batch.position, piece)
                await asyncio.sleep(0)
            self._state.apply(batch.position, last, batch.erased, batch.marks)
            self.last_entry_s = time.monotonic()
        now_ms = time.time() * _MS_PER_S
        for event in batch.events:
            self._on_delay(max(0.0, now_ms - event.received_ms) / _MS_PER_S)
        if self._on_batch is not None and (batch.snapshot is not None or batch.entries):
            self._batches.put_nowait(batch)

    async def _pass_on(self) -> None:
        """Hand the batches on, and report that all of them are applied up to the first end of the feed."""
        while True:
            batch = await self._batches.get()
            if batch is None:
                self._caught_up.set()
            elif self._on_batch is not None:
                await self._on_batch(batch)

    def _reached_end(self) -> None:
        if not self._at_end:
            self._at_end = True
            self._batches.put_nowait(None)

    def _disconnected(self, error: StreamError) -> None:
        self.connected = False
        self._reached_end()
        # Once for each kind of outage.
        if self._reported is not type(error):
            self._reported = type(error)
            _log.warning("live feed disconnected", reason=str(error))


def _pieces(events: list[LiveEvent]) -> list[list[LiveEvent]]:
    """Return the events in pieces, at least one, which may be empty."""
    return [events[start : start + _EVENTS_PER_PIECE] for start in range(0, max(1, len(events)), _EVENTS_PER_PIECE)]
