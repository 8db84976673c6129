"""From the log to the stream: strictly in order, one batch in flight, and back again when Redis forgot.

Invariant: batch n + 1 is not sent before batch n is confirmed, and after every connect, every doubt and every
`check_interval_s` the stream itself is asked how far it got. So a stream never has a hole, whatever of it
Redis loses, and what may be there already is sent again only where Redis or the archive removes it.

    [DURABLE] --append--> [SHIPPED] --watermark--> [FORGOTTEN]
        ^                     |
        +------ rewind -------+   the stream's last id, or its absence, is behind the cursor

Earlier epochs come first, under their own numbers. `resume` is the pure half: it alone decides where to go on.
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
    ProducerObserver,
    Rewound,
    WatermarkDoubted,
    notify,
)
from telemetry.settings import ProducerSettings
from telemetry.stream.namespace_owner import OwnerMark, ShipDecision, decide_shipping, foreign_redis_error
from telemetry.stream.redis_stream import Appended, EventStream, StreamState
from telemetry.wal.spool import Spool

_FIRST_BACKOFF_S = 0.05
_ARCHIVED_POLL_S = 0.1
# However slow the last answer was: it may have been slow because Redis was frozen.
_LATEST_CHECK_S = 5.0
_LEAST_BATCH_BYTES = 1024
# No batch of ours is longer.
_MOST_COMPARED = 100_000


@dataclass(frozen=True, slots=True)
class GoOn:
    """Send what follows `cursor`."""

    cursor: Position


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The stream or the archive is ahead of us: an old copy of our slot came back."""

    above: int


@dataclass(frozen=True, slots=True)
class NewProducer:
    """Somebody else wrote under our id."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Something stands in the stream that no producer of ours could have put there: it is the consumer's to remove."""

    reason: str


Decision: TypeAlias = GoOn | NewEpoch | NewProducer | Wait


def resume(generated: Position, state: StreamState, ours: bytes | None) -> Decision:
    """Decide where to go on after a handshake.

    Args:
        generated: The place of the last event that we numbered, in our epoch.
        state: What Redis says.
        ours: What we hold of the lines of the stream's last entry, from the last one backwards; None if nothing, and
            empty if it is no batch.

    Returns:
        Where to go on, or the new identity that is needed first.
    """
    reached = max(state.last or Position(0, 0), state.watermark or Position(0, 0))
    if not reached.in_range:
        return Wait(f"the stream stands at {reached}, which no producer of ours could reach")
    if reached > generated:
        return NewEpoch(reached.epoch)
    if ours is not None and state.tail is not None and state.tail.fields is not None:
        data = state.tail.fields.get(b"data")
        if not ours or data is None:
            return Wait(f"entry {state.last} of the stream is no batch of events")
        if not data.endswith(ours):
            return NewProducer(f"entry {state.last} is not what was sent")
    return GoOn(reached)


class Shipper:
    """Sends one producer's log.

    Args:
        spool: What to send, and whose it is.
        stream: Where to; this object's alone.
        settings: Limits and pauses.
        counters: Kept up to date here.
        observer: Told of outages, rewinds and new identities.
        on_release: Called when the log may have room again.
        hit: Called with the names of failpoints.
        archive: The archive of this installation, if it is known: a slot that has shipped nothing yet belongs to it.

    Attributes:
        archived: How far the archive is known to have it.
    """

    def __init__(
        self,
        spool: Spool,
        stream: EventStream,
        settings: ProducerSettings,
        counters: ProducerCounters,
        observer: ProducerObserver | None,
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
        self._cursor = Position(0, 0)
        self.archived = Position(0, 0)
        # The last entry that we know to be what we sent: asked again, it need not be compared.
        self._sent: tuple[str, bytes] | None = None
        self._create = False
        self._batch_bytes = settings.batch_bytes
        self._connections = 0
        self._outage_told: type[Exception] | None = None
        self._doubt: str | None = None
        self._next_check_s = 0.0
        self._last_batch_s = 0.0
        self._wake = asyncio.Event()
        spool.on_durable(self._wake.set)

    @property
    def archive(self) -> str | None:
        """The archive that the events go to; None if that is not known yet."""
        return self._spool.archive or self._archive

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
                        await self._ship_some()
                except (StreamError, SpoolError) as error:
                    self._disconnected(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, self._settings.backoff_s)
        finally:
            self._counters.connected = False
            self._counters.in_flight = 0
            await self._stream.close()

    async def drain(self, deadline_s: float, *, archived: bool = False) -> int:
        """Ship what is left; `run` has ended.

        Args:
            deadline_s: How long to try.
            archived: Whether to wait until the archive has it, too.

        Returns:
            How many events did not get out.
        """
        try:
            # When the time is up, what is left is the answer.
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._send_rest(archived=archived)
        finally:
            self._counters.connected = False
            self._counters.in_flight = 0
            await self._stream.close()
        return self.pending

    async def _send_rest(self, *, archived: bool) -> None:
        if archived:
            await self._spool.seal()
        # What is held but not archived may have been forgotten by Redis, so it is asked even if nothing is pending.
        while self._spool.held:
            try:
                await self._connect()
                while self._cursor < self._spool.durable:
                    await self._send_batch()
                while archived and self._spool.held:
                    await asyncio.sleep(_ARCHIVED_POLL_S)
                    await self._handshake()
                    while self._cursor < self._spool.durable:
                        await self._send_batch()
            except (StreamError, SpoolError) as error:
                self._disconnected(error)
                await asyncio.sleep(_FIRST_BACKOFF_S)
            else:
                return

    async def _connect(self) -> None:
        await self._stream.connect()
        # First of all: where another archive rules, not even the producer's name may be left.
        self._obey(await self._stream.read_mark())
        self._sent = None
        await self._handshake()
        self._connections += 1
        self._counters.reconnects = self._connections - 1
        self._counters.connected = True
        self._outage_told = None
        notify(self._observer, Connected())

    def _disconnected(self, error: StreamError | SpoolError) -> None:
        self._counters.in_flight = 0
        self._counters.last_error = str(error)
        self._counters.connected = False
        # What becomes a refusal after it was an outage is another thing to do for the operator.
        if self._outage_told is not type(error):
            self._outage_told = type(error)
            notify(self._observer, Disconnected(str(error)))

    async def _ship_some(self) -> None:
        """One turn: wait for something to do, check if it is time, send one batch."""
        if self._cursor >= self._spool.durable:
            self._wake.clear()
            # Its end is the time for the check below.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._next_check_s - time.monotonic(), 0)):
                    await self._wake.wait()
            if self._cursor < self._spool.durable:
                # Feedback is committed at once, one request at a time; this gathers more events for each entry.
                await asyncio.sleep(max(self._last_batch_s + self._settings.linger_s - time.monotonic(), 0))
        if time.monotonic() >= self._next_check_s:
            await self._handshake()
        if self._cursor < self._spool.durable:
            await self._send_batch()

    async def _send_batch(self) -> None:
        run = await self._spool.read(self._cursor, self._settings.batch_events, self._batch_bytes)
        if run is None:
            # Damage took what followed: there is nothing behind the cursor that could still be sent.
            self._cursor = self._spool.durable
            return
        if self._mark is not None and self._mark.archive != self._spool.archive:
            # Before the first event of the slot can get there.
            await self._spool.belong_to(self._mark.archive)
        batch = Batch(run.epoch, run.first_seq, run.lines, self._cursor)
        self._counters.in_flight = len(run.lines)
        self._last_batch_s = time.monotonic()
        self._hit("shipper.sending")
        try:
            appended = await self._stream.append(self._spool.producer_id, batch, create=self._create)
        except StreamAwayError:
            # A slow link may never carry so much within the deadline.
            self._batch_bytes = max(self._batch_bytes // 2, _LEAST_BATCH_BYTES)
            raise
        self._hit("shipper.confirmed")
        self._counters.in_flight = 0
        if appended is Appended.ADDED:
            self._batch_bytes = min(2 * self._batch_bytes, self._settings.batch_bytes)
            self._cursor = run.last
            self._sent = (batch.entry_id, batch.lines[-1])
            self._create = False
            self._counters.shipped += len(run.lines)
            self._counters.batches += 1
        else:
            # The stream is not as we thought: ask it, rather than believe that ours is what is there.
            self._sent = None
            await self._handshake()

    async def _handshake(self) -> None:
        while True:
            started_s = time.monotonic()
            state = await self._stream.handshake(self._spool.producer_id, time.time())
            self._obey(state.mark)
            decision = resume(self._spool.generated, state, await self._ours(state))
            if isinstance(decision, GoOn):
                break
            if isinstance(decision, Wait):
                raise StreamRefusedError(f"{decision.reason}; events wait in the log until the consumer removed it")
            await self._change_identity(decision)
        # A slow link must have time for the batches, too.
        took_s = time.monotonic() - started_s
        self._next_check_s = time.monotonic() + max(self._settings.check_interval_s, min(4 * took_s, _LATEST_CHECK_S))
        if decision.cursor < self._cursor:
            self._counters.rewinds += 1
            notify(self._observer, Rewound(self._spool.producer_id, str(decision.cursor), str(self._cursor)))
        self._cursor = decision.cursor
        self._create = state.last is None
        self._note_doubt(state.doubt)
        if state.watermark is not None:
            self.archived = state.watermark
            self._counters.released += await self._spool.release(state.watermark)
            self._on_release()

    def _note_doubt(self, doubt: str | None) -> None:
        if doubt is not None:
            self._counters.watermarks_doubted += 1
            if doubt != self._doubt:
                notify(self._observer, WatermarkDoubted(self._spool.producer_id, doubt))
        self._doubt = doubt

    def _obey(self, mark: OwnerMark | None) -> None:
        """Go on only where our events may go."""
        archive = self.archive
        decision = decide_shipping(archive, mark)
        if archive is not None and mark is not None and decision is ShipDecision.REFUSE:
            raise foreign_redis_error(self._stream.where, mark, archive)
        if decision is ShipDecision.WAIT:
            raise UnmarkedRedisError(
                f"{self._stream.where} does not have the mark of the archive {archive} (yet); its consumer writes it"
            )
        self._mark = mark

    async def _ours(self, state: StreamState) -> bytes | None:
        """Read what we hold of the stream's last entry, unless it is known to be ours."""
        if state.tail is None or state.tail.fields is None or state.last is None:
            return None
        fields = state.tail.fields
        if self._sent is not None and state.tail.entry_id == self._sent[0]:
            # The last line is enough: it holds the event's own id.
            return self._sent[1]
        try:
            last = Position.parse(state.tail.entry_id)
            first_seq, size_bytes = int(fields[b"first_seq"]), len(fields[b"data"])
        except (BadBatchError, KeyError, ValueError):
            return b""
        if not 1 <= first_seq <= last.seq or last.seq - first_seq >= _MOST_COMPARED:
            return b""
        if last > self._spool.generated:
            return None
        run = await self._spool.read(Position(last.epoch, first_seq - 1), last.seq - first_seq + 1, size_bytes)
        if run is None or run.epoch != last.epoch or run.last != last:
            # Released, or lost to damage: nothing to compare with.
            return None
        return b"".join(run.lines)

    async def _change_identity(self, decision: NewEpoch | NewProducer) -> None:
        spool = self._spool
        async with spool.exclusive:
            if isinstance(decision, NewEpoch):
                # Earlier epochs lie below what the stream has reached, as they should.
                after = max(self._cursor, Position(spool.epoch, 0))
                left = spool.move(spool.producer_id, max(spool.epoch, decision.above) + 1, after)
                reason = f"the stream had seen epoch {decision.above}"
            else:
                left = spool.move(uuid7(), spool.epoch + 1, self._cursor)
                self._counters.identity_conflicts += 1
                reason = decision.reason
        self._counters.relinquished += left
        self._counters.identity_changes += 1
        self._cursor = self.archived = Position(0, 0)
        self._sent = None
        notify(self._observer, IdentityChanged(spool.producer_id, spool.epoch, reason))
