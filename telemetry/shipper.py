"""The shipper: sends a write-ahead log to its stream, in order, one batch at a time, and rewinds after a loss.

Invariant: batch n + 1 is not sent before batch n is confirmed. After every connect, every unexpected reply and every
`check_interval_s` a handshake asks the stream how far it got. So a stream has no gap, whatever Redis loses of it, and
batches are sent twice only where Redis or the archive removes duplicates.

    [DURABLE] --append--> [SHIPPED] --watermark--> [RELEASED]
        ^                     |
        +------ rewind -------+   the stream's last id, or its absence, is behind the cursor

Earlier epochs come first, under their own numbers. `decide_resume`, which is pure, alone decides where to continue.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from telemetry.batch import Batch, Position
from telemetry.counters import ProducerCounters
from telemetry.errors import (
    BadBatchError,
    SpoolError,
    StreamAwayError,
    StreamError,
    StreamRefusedError,
    UnmarkedRedisError,
)
from telemetry.ids import uuid7
from telemetry.notes import (
    Connected,
    Disconnected,
    IdentityChanged,
    Observer,
    Rewound,
    WatermarkDoubted,
    notify,
)
from telemetry.settings import ProducerSettings
from telemetry.stream.event_stream import Appended, EventStream, StreamState
from telemetry.stream.namespace_owner import OwnerMark, ShipDecision, decide_shipping, foreign_redis_error
from telemetry.wal.spool import Spool

_FIRST_BACKOFF_S = 0.05
_ARCHIVED_POLL_S = 0.1
# The longest pause between two handshakes, however slow the last one was: Redis may only have been frozen.
_LATEST_CHECK_S = 5.0
_LEAST_BATCH_BYTES = 1024
# No batch has more lines.
_MOST_COMPARED = 100_000


@dataclass(frozen=True, slots=True)
class ResumeAt:
    """Send what follows `cursor`."""

    cursor: Position


@dataclass(frozen=True, slots=True)
class TakeNewEpoch:
    """The stream or the archive is ahead of the slot, which was restored from an old copy."""

    above: int


@dataclass(frozen=True, slots=True)
class TakeNewProducer:
    """Another process wrote under this producer's id."""

    reason: str


@dataclass(frozen=True, slots=True)
class WaitForConsumer:
    """The stream holds something that no producer writes; the consumer removes it."""

    reason: str


ResumeDecision: TypeAlias = ResumeAt | TakeNewEpoch | TakeNewProducer | WaitForConsumer


def decide_resume(last_appended: Position, state: StreamState, spooled_tail: bytes | None) -> ResumeDecision:
    """Decide where to continue after a handshake.

    Args:
        last_appended: The position of the last event in the write-ahead log.
        state: The stream's state.
        spooled_tail: The last lines of the stream's last entry as the spool has them; None if it has none of them,
            empty if the entry is no batch.
    """
    reached = max(state.last or Position(0, 0), state.watermark or Position(0, 0))
    if not reached.in_range:
        return WaitForConsumer(f"The stream's last id is {reached}, which no producer reaches.")
    if reached > last_appended:
        return TakeNewEpoch(reached.epoch)
    if spooled_tail is not None and state.tail is not None and state.tail.fields is not None:
        data = state.tail.fields.get(b"data")
        if not spooled_tail or data is None:
            return WaitForConsumer(f"Entry {state.last} of the stream is no batch of events.")
        if not data.endswith(spooled_tail):
            return TakeNewProducer(f"entry {state.last} is not what was sent")
    return ResumeAt(reached)


class Shipper:
    """Sends one producer's write-ahead log.

    Args:
        spool: The write-ahead log.
        stream: Used by this object alone.
        settings: Limits and pauses.
        counters: Updated here.
        observer: Notified of outages, rewinds and new identities.
        on_release: Called when the write-ahead log may have room again, as for gap records.
        hit: Called with the names of failpoints.
        archive: The archive of this installation, if it is known: events of a slot that has shipped none go there.

    Attributes:
        archived: The position up to which the archive is known to have the events.
        owns_namespace: Whether the namespace was this installation's when Redis was last asked.
    """

    def __init__(
        self,
        spool: Spool,
        stream: EventStream,
        settings: ProducerSettings,
        counters: ProducerCounters,
        observer: Observer | None,
        on_release: Callable[[], None],
        hit: Callable[[str], None] = lambda _name: None,
        archive: str | None = None,
    ) -> None:
        self._spool = spool
        self._archive = archive
        self._mark: OwnerMark | None = None
        self._stream = stream
        self._settings = settings
        self._counters = counters
        self._observer = observer
        self._on_release = on_release
        self._hit = hit
        # The last event that the stream confirmed; sending continues behind it.
        self._cursor = Position(0, 0)
        self.archived = Position(0, 0)
        self.owns_namespace = False
        # The id of the last confirmed entry and its last line: the stream's tail with this id need not be read back.
        self._confirmed: tuple[str, bytes] | None = None
        self._may_create_stream = False
        self._batch_bytes = settings.batch_bytes
        self._connections = 0
        self._reported_outage: type[Exception] | None = None
        self._reported_doubt: str | None = None
        self._next_check_s = 0.0
        self._last_batch_s = 0.0
        self._wake = asyncio.Event()
        spool.on_durable(self._wake.set)

    @property
    def archive(self) -> str | None:
        """The archive that the events go to; None if that is not known yet."""
        return self._spool.identity.archive or self._archive

    @property
    def unarchived(self) -> int:
        """How many events the archive is not known to have."""
        return self._spool.count_after(self.archived)

    @property
    def pending(self) -> int:
        """How many events the stream has not confirmed."""
        return self._spool.count_after(self._cursor)

    async def run(self) -> None:
        """Ship until cancelled, through any outage of the stream."""
        backoff_s = _FIRST_BACKOFF_S
        try:
            while True:
                try:
                    await self._connect()
                    backoff_s = _FIRST_BACKOFF_S
                    while True:
                        await self._ship_next()
                except (StreamError, SpoolError) as error:
                    self._disconnected(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, self._settings.backoff_s)
        finally:
            await self._close()

    async def drain(self, deadline_s: float, *, archived: bool = False) -> int:
        """Ship the rest after `run` has ended, as `Producer.drain`; return how many events were not shipped."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._ship_rest(archived=archived)
        finally:
            await self._close()
        return self.pending

    async def _close(self) -> None:
        self._counters.connected = False
        self._counters.in_flight = 0
        await self._stream.close()

    async def _ship_rest(self, *, archived: bool) -> None:
        if archived:
            await self._spool.close_segment()
        # Redis may have lost events that are held and not archived, so it is asked even if none is pending.
        while self._spool.held:
            try:
                await self._connect()
                await self._send_durable()
                while archived and self._spool.held:
                    await asyncio.sleep(_ARCHIVED_POLL_S)
                    await self._handshake()
                    await self._send_durable()
            except (StreamError, SpoolError) as error:
                self._disconnected(error)
                await asyncio.sleep(_FIRST_BACKOFF_S)
            else:
                return

    async def _send_durable(self) -> None:
        while self._cursor < self._spool.durable:
            await self._send_batch()

    async def _connect(self) -> None:
        await self._stream.connect()
        # Before the handshake: not even the producer's id may be left in another archive's namespace.
        self._check_owner(await self._stream.read_mark())
        self._confirmed = None
        await self._handshake()
        self._connections += 1
        self._counters.reconnects = self._connections - 1
        self._counters.connected = True
        self._reported_outage = None
        notify(self._observer, Connected())

    def _disconnected(self, error: StreamError | SpoolError) -> None:
        self._counters.in_flight = 0
        self._counters.last_error = str(error)
        self._counters.connected = False
        # An outage that becomes a refusal needs another action of the operator, so it is reported again.
        if self._reported_outage is not type(error):
            self._reported_outage = type(error)
            notify(self._observer, Disconnected(str(error)))

    async def _ship_next(self) -> None:
        """Wait for durable events or the next check, then check and send one batch."""
        if self._cursor >= self._spool.durable:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._next_check_s - time.monotonic(), 0)):
                    await self._wake.wait()
            if self._cursor < self._spool.durable:
                # Feedback is committed at once, one request at a time; the pause gathers more events for an entry.
                await asyncio.sleep(max(self._last_batch_s + self._settings.linger_s - time.monotonic(), 0))
        if time.monotonic() >= self._next_check_s:
            await self._handshake()
        if self._cursor < self._spool.durable:
            await self._send_batch()

    async def _send_batch(self) -> None:
        run = await self._spool.read(self._cursor, self._settings.batch_events, self._batch_bytes)
        if run is None:
            # Damage took the rest: nothing behind the cursor can be sent.
            self._cursor = self._spool.durable
            return
        if self._mark is not None and self._mark.archive != self._spool.identity.archive:
            # Before the slot's first event reaches that archive.
            await self._spool.bind_archive(self._mark.archive)
        batch = Batch(run.epoch, run.first_seq, run.lines, self._cursor)
        self._counters.in_flight = len(run.lines)
        self._last_batch_s = time.monotonic()
        self._hit("shipper.sending")
        try:
            appended = await self._stream.append(self._spool.producer_id, batch, create=self._may_create_stream)
        except StreamAwayError:
            # A slow link may never carry this much within the deadline.
            self._batch_bytes = max(self._batch_bytes // 2, _LEAST_BATCH_BYTES)
            raise
        self._hit("shipper.confirmed")
        self._counters.in_flight = 0
        if appended is Appended.ADDED:
            self._batch_bytes = min(2 * self._batch_bytes, self._settings.batch_bytes)
            self._cursor = run.last
            self._confirmed = (batch.entry_id, batch.lines[-1])
            self._may_create_stream = False
            self._counters.shipped += len(run.lines)
            self._counters.batches += 1
        else:
            # The stream is not as expected: read its tail back instead of assuming that this producer wrote it.
            self._confirmed = None
            await self._handshake()

    async def _handshake(self) -> None:
        while True:
            started_s = time.monotonic()
            state = await self._stream.handshake(self._spool.producer_id, time.time())
            self._check_owner(state.mark)
            decision = decide_resume(self._spool.last_appended, state, await self._spooled_tail(state))
            if isinstance(decision, ResumeAt):
                break
            if isinstance(decision, WaitForConsumer):
                raise StreamRefusedError(
                    f"{decision.reason} Events stay in the write-ahead log until the consumer removes it."
                )
            await self._change_identity(decision)
        # On a slow link handshakes must leave time for the batches.
        took_s = time.monotonic() - started_s
        self._next_check_s = time.monotonic() + max(self._settings.check_interval_s, min(4 * took_s, _LATEST_CHECK_S))
        if decision.cursor < self._cursor:
            self._counters.rewinds += 1
            notify(self._observer, Rewound(self._spool.producer_id, str(decision.cursor), str(self._cursor)))
        self._cursor = decision.cursor
        self._may_create_stream = state.last is None
        self._report_doubt(state.doubt)
        if state.watermark is not None:
            self.archived = state.watermark
            self._counters.released += await self._spool.release(state.watermark)
            self._on_release()

    def _report_doubt(self, doubt: str | None) -> None:
        if doubt is not None:
            self._counters.watermarks_doubted += 1
            if doubt != self._reported_doubt:
                notify(self._observer, WatermarkDoubted(self._spool.producer_id, doubt))
        self._reported_doubt = doubt

    def _check_owner(self, mark: OwnerMark | None) -> None:
        """Raise unless this slot's events may go to the namespace with this mark."""
        archive = self.archive
        decision = decide_shipping(archive, mark)
        self.owns_namespace = decision is ShipDecision.SHIP
        if archive is not None and mark is not None and decision is ShipDecision.REFUSE:
            raise foreign_redis_error(self._stream.where, mark, archive)
        if decision is ShipDecision.WAIT:
            raise UnmarkedRedisError(
                f"The mark of the archive {archive} is not in {self._stream.where} yet. Its consumer writes it."
            )
        self._mark = mark

    async def _spooled_tail(self, state: StreamState) -> bytes | None:
        """Return the lines to compare with the stream's last entry, as `decide_resume` takes them."""
        if state.tail is None or state.tail.fields is None or state.last is None:
            return None
        fields = state.tail.fields
        if self._confirmed is not None and state.tail.entry_id == self._confirmed[0]:
            # The last line suffices: it holds the event's id.
            return self._confirmed[1]
        try:
            last = Position.parse(state.tail.entry_id)
            first_seq, size_bytes = int(fields[b"first_seq"]), len(fields[b"data"])
        except (BadBatchError, KeyError, ValueError):
            return b""
        if not 1 <= first_seq <= last.seq or last.seq - first_seq >= _MOST_COMPARED:
            return b""
        if last > self._spool.last_appended:
            return None
        run = await self._spool.read(Position(last.epoch, first_seq - 1), last.seq - first_seq + 1, size_bytes)
        if run is None or run.epoch != last.epoch or run.last != last:
            # Released, or lost to damage.
            return None
        return b"".join(run.lines)

    async def _change_identity(self, decision: TakeNewEpoch | TakeNewProducer) -> None:
        spool = self._spool
        if isinstance(decision, TakeNewEpoch):
            # Earlier epochs lie below the stream's last id, as they should.
            after, producer = max(self._cursor, Position(spool.epoch, 0)), spool.producer_id
            epoch = max(spool.epoch, decision.above) + 1
            reason = f"the stream had seen epoch {decision.above}"
        else:
            after, producer, epoch, reason = self._cursor, uuid7(), spool.epoch + 1, decision.reason
        self._counters.relinquished += await spool.renumber_after(after, producer=producer, epoch=epoch)
        self._counters.identity_conflicts += isinstance(decision, TakeNewProducer)
        self._counters.identity_changes += 1
        self._cursor = self.archived = Position(0, 0)
        self._confirmed = None
        notify(self._observer, IdentityChanged(spool.producer_id, spool.epoch, reason))
