"""From the buffer to the stream: strictly in order, one batch in flight, and back again when Redis forgot.

Invariant: batch n + 1 is not sent before batch n is confirmed, and after every connect, every doubt and every
`check_interval_s` the stream itself is asked how far it got. So a stream never has a hole, whatever of it
Redis loses, and what may be there already is sent again only where Redis or the archive removes it.

    [DURABLE] --append--> [SHIPPED] --watermark--> [FORGOTTEN]
        ^                     |
        +------ rewind -------+   the stream's last id, or its absence, is behind the cursor

`resume` is the pure half: it alone decides where to go on.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from telemetry.batch import Batch, Position
from telemetry.buffer import EventBuffer
from telemetry.counters import ProducerCounters
from telemetry.errors import BadBatchError, StreamError
from telemetry.events import renumber
from telemetry.notes import Connected, Disconnected, IdentityChanged, ProducerObserver, Rewound, tell
from telemetry.settings import ProducerSettings
from telemetry.slot import Slot
from telemetry.stream import Appended, EventStream, StreamState

_FIRST_BACKOFF_S = 0.05
# No epoch of ours gets here; beyond it an epoch could not be raised for ever.
_MAX_EPOCH = 2**53


@dataclass(frozen=True, slots=True)
class GoOn:
    """Send from `cursor + 1`."""

    cursor: int


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The stream or the archive is ahead of us: an old copy of our slot came back."""

    above: int


@dataclass(frozen=True, slots=True)
class NewProducer:
    """Somebody else wrote under our id."""

    reason: str


Decision: TypeAlias = GoOn | NewEpoch | NewProducer


def resume(epoch: int, buffer: EventBuffer, state: StreamState) -> Decision:
    """Decide where to go on after a handshake.

    Args:
        epoch: Our epoch.
        buffer: What we hold of it.
        state: What Redis says.

    Returns:
        Where to go on, or the new identity that is needed first.
    """
    generated = Position(epoch, buffer.next_seq - 1)
    reached = max(state.last or Position(0, 0), state.watermark or Position(0, 0))
    if reached > generated:
        if reached.epoch >= _MAX_EPOCH:
            return NewProducer(f"the stream stands at {reached}")
        return NewEpoch(reached.epoch)
    if not _tail_is_ours(epoch, buffer, state):
        return NewProducer(f"entry {state.last} is not what was sent")
    return GoOn(max(reached.seq if reached.epoch == epoch else 0, buffer.released_through))


def _tail_is_ours(epoch: int, buffer: EventBuffer, state: StreamState) -> bool:
    """Compare the stream's last entry with the lines we sent, as far as both are still there."""
    if state.tail is None or state.tail.fields is None:
        return True
    try:
        last = Position.parse(state.tail.entry_id)
        if last.epoch != epoch or last.seq <= buffer.released_through:
            return True
        first_seq = max(int(state.tail.fields[b"first_seq"]), buffer.released_through + 1)
        data = state.tail.fields[b"data"]
    except (BadBatchError, KeyError, ValueError):
        return False
    ours = b"".join(buffer.read_from(first_seq, last.seq - first_seq + 1, len(data)))
    return bool(ours) and data.endswith(ours)


class Shipper:
    """Sends one producer's buffer.

    Args:
        slot: Whose identity the events carry.
        buffer: What to send.
        stream: Where to; this object's alone.
        settings: Limits and pauses.
        counters: Kept up to date here.
        observer: Told of outages, rewinds and new identities.
        on_release: Called when the buffer may have room again.
    """

    def __init__(
        self,
        slot: Slot,
        buffer: EventBuffer,
        stream: EventStream,
        settings: ProducerSettings,
        counters: ProducerCounters,
        observer: ProducerObserver | None,
        on_release: Callable[[], None],
    ) -> None:
        self._slot = slot
        self._buffer = buffer
        self._stream = stream
        self._settings = settings
        self._counters = counters
        self._observer = observer
        self._on_release = on_release
        self._cursor = 0
        self._create = False
        self._connections = 0
        self._outage_told = False
        self._next_check_s = 0.0
        self._wake = asyncio.Event()

    @property
    def pending(self) -> int:
        """How many events the stream has not confirmed."""
        return self._buffer.next_seq - 1 - self._cursor

    def wake(self) -> None:
        """Say that there is something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Ship until cancelled, through any outage of the stream."""
        backoff_s = _FIRST_BACKOFF_S
        try:
            while True:
                try:
                    await self._connect()
                    backoff_s = _FIRST_BACKOFF_S
                    while True:
                        await self._ship_some()
                except StreamError as error:
                    self._disconnected(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, self._settings.backoff_s)
        finally:
            self._counters.connected = False
            self._counters.in_flight = 0
            await self._stream.close()

    async def drain(self, deadline_s: float) -> int:
        """Ship what is left; `run` has ended.

        Args:
            deadline_s: How long to try.

        Returns:
            How many events did not get out.
        """
        try:
            # When the time is up, what is left is the answer.
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._send_rest()
        finally:
            self._counters.connected = False
            self._counters.in_flight = 0
            await self._stream.close()
        return self.pending

    async def _send_rest(self) -> None:
        # What is held but not archived may have been forgotten by Redis, so it is asked even if nothing is pending.
        while self._buffer.held:
            try:
                await self._connect()
                while self.pending:
                    await self._send_batch()
            except StreamError as error:
                self._disconnected(error)
                await asyncio.sleep(_FIRST_BACKOFF_S)
            else:
                return

    async def _connect(self) -> None:
        await self._stream.connect()
        await self._handshake()
        self._connections += 1
        self._counters.reconnects = self._connections - 1
        self._counters.connected = True
        self._outage_told = False
        tell(self._observer, Connected())

    def _disconnected(self, error: StreamError) -> None:
        self._counters.in_flight = 0
        self._counters.last_error = str(error)
        self._counters.connected = False
        if not self._outage_told:
            self._outage_told = True
            tell(self._observer, Disconnected(str(error)))

    async def _ship_some(self) -> None:
        """One turn: wait for something to do, check if it is time, send one batch."""
        if not self.pending:
            self._wake.clear()
            # Its end is the time for the check below.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._next_check_s - time.monotonic(), 0)):
                    await self._wake.wait()
        if time.monotonic() >= self._next_check_s:
            await self._handshake()
        if self.pending:
            if self.pending < self._settings.batch_events:
                await asyncio.sleep(self._settings.linger_s)
            await self._send_batch()

    async def _send_batch(self) -> None:
        settings = self._settings
        lines = self._buffer.read_from(self._cursor + 1, settings.batch_events, settings.batch_bytes)
        batch = Batch(self._slot.epoch, self._cursor + 1, lines)
        self._counters.in_flight = len(lines)
        appended = await self._stream.append(self._slot.producer_id, batch, create=self._create)
        self._counters.in_flight = 0
        if appended is Appended.ADDED:
            self._cursor = batch.last_seq
            self._create = False
            self._counters.shipped += len(lines)
            self._counters.batches += 1
        else:
            # The stream is not as we thought: ask it, rather than believe that ours is what is there.
            await self._handshake()

    async def _handshake(self) -> None:
        while True:
            state = await self._stream.inspect(self._slot.producer_id, time.time())
            decision = resume(self._slot.epoch, self._buffer, state)
            if isinstance(decision, GoOn):
                break
            self._change_identity(decision)
        self._next_check_s = time.monotonic() + self._settings.check_interval_s
        if decision.cursor < self._cursor:
            self._counters.rewinds += 1
            tell(
                self._observer,
                Rewound(self._slot.producer_id, self._slot.epoch, decision.cursor + 1, self._cursor),
            )
        self._cursor = decision.cursor
        self._create = state.last is None
        if state.watermark is not None and state.watermark.epoch == self._slot.epoch:
            self._counters.released += self._buffer.release_through(state.watermark.seq)
            self._on_release()

    def _change_identity(self, decision: NewEpoch | NewProducer) -> None:
        if isinstance(decision, NewEpoch):
            self._slot.raise_epoch(decision.above)
            reason = f"the stream had seen epoch {decision.above}"
        else:
            self._slot.renew()
            self._counters.identity_conflicts += 1
            reason = decision.reason
        producer, epoch = self._slot.producer_id, self._slot.epoch
        self._buffer.renumber(self._cursor, lambda line, seq: renumber(line, producer, epoch, seq))
        self._counters.relinquished = self._buffer.relinquished
        self._counters.identity_changes += 1
        self._cursor = 0
        tell(self._observer, IdentityChanged(producer, epoch, reason))
