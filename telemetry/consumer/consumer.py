"""The consumer job: from the streams into the archive, one consumer at a time.

Invariant, the order of every round: read, judge, commit to the archive, then acknowledge, publish the watermark
and trim, then the sinks. What was delivered and not committed comes again; what was committed and not
acknowledged comes again and is skipped. So whatever dies between two steps, an event is archived once. A failpoint
stands at each step.

Only the holder of the archive's lease reads. A round is never cut short by cancellation. No event blocks the others:
one that fails is tried in three rounds, one that kills its consumer is found by `attempts.py`, and both end in the
dead letters.
"""

import asyncio
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from telemetry.archive.archive import Archive
from telemetry.batch import Entry, Position, from_entry
from telemetry.consumer.event_reader import MAX_TRIES, Check, EventPosition, EventReader
from telemetry.consumer.intake import CommitPlan, SortedDeliveries, plan_commit, sort_deliveries
from telemetry.consumer.namespace_hold import NamespaceHold
from telemetry.consumer.retention_job import RetentionJob
from telemetry.consumer.sinks import Sink
from telemetry.consumer.subscription import IMPATIENT_S, Subscription
from telemetry.counters import ConsumerCounters
from telemetry.erasure.erasure import UserEraser
from telemetry.erasure.erasure_job import ErasureJob
from telemetry.errors import ArchiveError, BadBatchError, LeaseLostError, StreamAwayError, StreamError
from telemetry.events import Record
from telemetry.failpoints import Failpoints
from telemetry.ids import rfc3339_ms
from telemetry.notes import (
    ArchiveFailed,
    Committed,
    Connected,
    ConsumerObserver,
    Disconnected,
    LeaseLost,
    LeaseTaken,
    SinkFailed,
    StandingBy,
    notify,
)
from telemetry.settings import ConsumerSettings
from telemetry.shielding import shield_until_done
from telemetry.stream.event_stream import Acknowledgement, Delivered, EventStream

_FIRST_BACKOFF_S = 0.05
# What failed with an event may be over a moment later; three tries take far less than the events behind it may wait.
_BETWEEN_TRIES_S = 0.05
_DRAIN_BLOCK_MS = 1
# A commit waits for one step of expiry at most.
_EXPIRE_STEP_S = 0.02
_EXPIRE_LEAST, _EXPIRE_MOST = 50, 5000


class Consumer:
    """One consumer process.

    Args:
        stream: The reading end; this object's alone.
        archive: Where events go; closed when `run` ends.
        sinks: What gets the events after each commit, in this order.
        settings: Limits and pauses.
        observer: Told what happens.
        user_erasers: Who besides the archive has to forget a user.
        check: Asked about each event before it is archived; what it raises is that event's failure.
        failpoints: Where a drill may strike.
    """

    def __init__(
        self,
        stream: EventStream,
        archive: Archive,
        sinks: Sequence[Sink],
        settings: ConsumerSettings,
        observer: ConsumerObserver | None = None,
        *,
        user_erasers: Sequence[UserEraser] = (),
        check: Check | None = None,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._stream = stream
        self._namespace = NamespaceHold(stream, archive)
        self._archive = archive
        self._sinks = sinks
        self._settings = settings
        self._observer = observer
        self.counters = ConsumerCounters()
        self._erasure_job = ErasureJob(archive, user_erasers, settings, self.counters, observer)
        self._reader = EventReader(check)
        self._failpoints = failpoints or Failpoints()
        self._retention_job = RetentionJob(archive, settings, self.counters, observer, self._failpoints)
        self._read_entries = settings.read_entries
        self._streams = Subscription(stream, settings, self.counters, observer, self._failpoints.hit)
        self._emptied: asyncio.Event | None = None
        self._connections = 0
        self._outage_told = False
        self._next_commit_s = 0.0

    async def run(self) -> None:
        """Hold or await the lease, and archive, until cancelled."""
        try:
            while True:
                try:
                    await self._hold()
                except LeaseLostError:
                    notify(self._observer, LeaseLost())
                except ArchiveError as error:
                    # What the disk now holds is uncertain, so everything is read from it again.
                    self._failed(error)
                self.counters.active = False
                with suppress(ArchiveError):
                    await self._archive.release()
                await asyncio.sleep(self._settings.backoff_s)
        finally:
            self.counters.active = False
            self.counters.connected = False
            await self._stream.close()
            # The lease then runs out by itself, and the caller is being cancelled.
            with suppress(ArchiveError):
                await self._archive.close()

    async def drain(self, deadline_s: float) -> bool:
        """Wait until everything that the streams hold now is archived, while `run` goes on.

        Args:
            deadline_s: How long to wait.

        Returns:
            Whether nothing was left, as far as it is for us to say: a standby leaves nothing.
        """
        if not self.counters.active:
            return True
        self._emptied = asyncio.Event()
        # Streams that have just begun count as well.
        self._streams.look_now()
        try:
            async with asyncio.timeout(deadline_s):
                await self._emptied.wait()
        except TimeoutError:
            return False
        finally:
            self._emptied = None
        return True

    async def _hold(self) -> None:
        epoch = await self._archive.acquire(
            self._settings.takeover_s, lambda holder: notify(self._observer, StandingBy(holder))
        )
        self._streams.ours.clear()
        self.counters.active = True
        notify(self._observer, LeaseTaken(epoch))
        for path in self._archive.damaged:
            self._failed(ArchiveError(f"{path} in the archive is shorter than its committed length"))
        tasks = {
            asyncio.create_task(step)
            for step in (
                self._keep_lease(),
                self._work(),
                self._expire(),
                self._erasure_job.run(),
                self._retention_job.run(),
            )
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            try:
                await self._archive.beat()
                # Without events there is no commit to do it.
                await shield_until_done(self._archive.seal(if_due=True))
            except LeaseLostError:
                raise
            except ArchiveError as error:
                # A commit decides what to do about it; a beat alone may be late.
                self._failed(error)

    async def _expire(self) -> None:
        """Forget old event ids as fast as they grow old, in steps that a commit can wait for."""
        limit = _EXPIRE_LEAST
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            more = True
            while more:
                try:
                    expired, took_s = await self._archive.expire_seen(self._settings.seen_days, limit)
                except LeaseLostError:
                    raise
                except ArchiveError as error:
                    self._failed(error)
                    break
                more = expired == limit
                if more:
                    limit = min(max(round(limit * _EXPIRE_STEP_S / took_s), _EXPIRE_LEAST), _EXPIRE_MOST)
                # As long again for the commits, which share the catalogue's thread.
                await asyncio.sleep(took_s)

    async def _work(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                await self._connect()
                while True:
                    await self._round()
                    backoff_s = _FIRST_BACKOFF_S
            except StreamError as error:
                self._disconnected(error)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, self._settings.backoff_s)

    async def _connect(self) -> None:
        await self._stream.connect()
        await self._namespace.hold()
        self._streams.reconnected()
        self._connections += 1
        self.counters.reconnects = self._connections - 1

    async def _round(self) -> None:
        emptied, streams = self._emptied, self._streams
        if streams.due:
            await self._namespace.hold()
            await self._look()
        if streams.bare and await self._read_bare():
            return
        if not streams.joined:
            if emptied is not None:
                emptied.set()
            await asyncio.sleep(IMPATIENT_S)
            return
        if streams.recheck:
            await self._read_pending()
            return
        # Under light load this gathers more events for each fsync.
        await asyncio.sleep(max(self._next_commit_s - time.monotonic(), 0))
        block_ms = self._settings.block_ms if emptied is None else _DRAIN_BLOCK_MS
        deliveries = await self._read(sorted(streams.joined), pending=False, block_ms=block_ms)
        if deliveries:
            await shield_until_done(self._take(deliveries, pending=False))
        elif emptied is not None:
            emptied.set()

    async def _read_pending(self) -> None:
        if self._reader.failing:
            await asyncio.sleep(_BETWEEN_TRIES_S)
        streams = self._streams
        deliveries = await self._read(sorted(streams.recheck), pending=True, block_ms=0)
        streams.ours |= streams.recheck.difference(delivered.producer for delivered in deliveries)
        streams.recheck.intersection_update(delivered.producer for delivered in deliveries)
        await self._take_pending(deliveries)

    async def _read_bare(self) -> bool:
        """Read streams whose group a full Redis has no room for; returns whether there was something."""
        watermarks = self._archive.watermarks
        wanted = {name: watermarks.get(name, Position(0, 0)) for name in sorted(self._streams.bare)}
        deliveries = await self._stream.scan(wanted, max_entries=self._read_entries)
        await self._take_pending(deliveries)
        # What a predecessor may have died of was among the first that we took.
        self._streams.ours.update(delivered.producer for delivered in deliveries)
        if self._reader.failing:
            await asyncio.sleep(_BETWEEN_TRIES_S)
        return bool(deliveries)

    async def _take_pending(self, deliveries: Sequence[Delivered]) -> None:
        ours = [delivered for delivered in deliveries if delivered.producer in self._streams.ours]
        if ours:
            await shield_until_done(self._take(ours, pending=True))
        for producer, entries in deliveries:
            for entry in entries if producer not in self._streams.ours else ():
                if not await shield_until_done(self._take_inherited(producer, entry)):
                    # What lies behind it waits for it, or would look like a hole.
                    break

    async def _read(self, producers: Sequence[str], *, pending: bool, block_ms: int) -> list[Delivered]:
        """Read, and ask for less at once if that takes too long: a slow link must not stop everything."""
        most = self._read_entries
        try:
            deliveries = await self._stream.read(producers, pending=pending, max_entries=most, block_ms=block_ms)
        except StreamAwayError:
            self._read_entries = max(most // 2, 1)
            raise
        if deliveries:
            self._read_entries = min(2 * most, self._settings.read_entries)
            self._failpoints.hit("consumer.read")
            self._streams.busy.update(delivered.producer for delivered in deliveries)
        return deliveries

    async def _look(self) -> None:
        await self._streams.look(self._archive.watermarks)
        if not self.counters.connected:
            self.counters.connected = True
            self._outage_told = False
            notify(self._observer, Connected())

    async def _take_inherited(self, producer: str, entry: Entry) -> bool:
        """Take an entry that a predecessor may have died of; returns whether it is done with."""
        position = Position.parse(entry.entry_id)
        at = self._archive.watermarks.get(producer, Position(0, 0))
        if entry.fields is not None and at < position and position.in_range:
            first = Position(position.epoch, at.seq + 1 if at.epoch == position.epoch else 1)
            attempt = await self._archive.attempt(producer, first, position)
            self._reader.mark_fatal((producer, position.epoch, seq) for seq in attempt.fatal)
            # The delivery that is counted here first was the second one.
            if attempt.times >= MAX_TRIES - 1:
                await self._probe_events(producer, entry, first)
        gaps = await self._take([Delivered(producer, [entry])], pending=True)
        return not (self._reader.failing or gaps)

    async def _probe_events(self, producer: str, entry: Entry, first: Position) -> None:
        """Handle each event of an entry alone, so that the one we die of can be told from the others."""
        for place, line in _events(producer, entry, first.seq):
            event = Position(*place[1:])
            await self._archive.mark(producer, event, begun=True)
            self._reader.probe(line, place)
            await self._archive.mark(producer, event, begun=False)

    async def _take(self, deliveries: Sequence[Delivered], *, pending: bool) -> Collection[str]:
        """Archive what can be; returns the producers with a gap before the rest."""
        watermarks, streams = self._archive.watermarks, self._streams
        now, asked = rfc3339_ms(time.time()), streams.asked
        intake = sort_deliveries(deliveries, watermarks, self._reader, pending=pending, now=now, asked=asked)
        # Those that are read without a group are read from their watermark anyway.
        streams.recheck |= intake.recheck & streams.joined
        streams.found(intake.gaps, intake.linked)
        # Asked anew each time: what the last round committed must not be archived after all.
        forgotten = await self._archive.forgotten(self._settings.seen_days, intake.users())
        agreed = plan_commit(intake, await self._archive.seen(intake.keys()), forgotten, self._archive.fingerprints)
        self._failpoints.hit("consumer.judged")
        if intake.progress or intake.dead:
            started_s = time.monotonic()
            await self._archive.commit(agreed.added)
            self._next_commit_s = started_s + self._settings.commit_interval_s
            self._count(intake, agreed, time.monotonic() - started_s)
            if agreed.added.erasures:
                self._erasure_job.wake()
        self.counters.redelivered += intake.redelivered
        self.counters.trimmed_pending += intake.trimmed
        try:
            has_room = await self._stream.acknowledge(
                [Acknowledgement(name, ids, watermarks.get(name)) for name, ids in intake.settled.items() if ids]
            )
            streams.was_full(full=not has_room)
            self._failpoints.hit("consumer.acknowledged")
        finally:
            # Committed is committed, whether or not Redis could be told.
            await self._inform(agreed.records)
        self._failpoints.hit("consumer.informed")
        return intake.gaps

    async def _inform(self, records: Sequence[Record]) -> None:
        if not records:
            return
        for sink in self._sinks:
            try:
                await sink.take(records)
            except Exception as error:  # noqa: BLE001 - a sink is somebody else's code and must not stop the archive
                self.counters.sink_failures += 1
                notify(self._observer, SinkFailed(sink.name, f"{type(error).__name__}: {error}"))

    def _count(self, intake: SortedDeliveries, agreed: CommitPlan, duration_s: float) -> None:
        counters = self.counters
        dead_lettered = sum(progress.dead_lettered for progress in intake.progress.values())
        deduplicated = sum(progress.deduplicated for progress in intake.progress.values())
        counters.archived += len(agreed.records)
        counters.archived_bytes += sum(len(line) for lines in agreed.added.folders.values() for line in lines)
        counters.deduplicated += deduplicated
        counters.conflicts += agreed.conflicts
        counters.erased += sum(progress.erased for progress in intake.progress.values())
        counters.dead_lettered += dead_lettered
        counters.sequence_holes += sum(progress.holes for progress in intake.progress.values())
        counters.missing += sum(progress.missing for progress in intake.progress.values())
        counters.commits += 1
        counters.commit_s += duration_s
        for note in intake.notes:
            notify(self._observer, note)
        notify(self._observer, Committed(len(agreed.records), deduplicated, dead_lettered, duration_s))

    def _disconnected(self, error: StreamError) -> None:
        self.counters.connected = False
        self.counters.last_error = str(error)
        if not self._outage_told:
            self._outage_told = True
            notify(self._observer, Disconnected(str(error)))

    def _failed(self, error: ArchiveError) -> None:
        self.counters.last_error = str(error)
        notify(self._observer, ArchiveFailed(str(error)))


def _events(producer: str, entry: Entry, first_seq: int) -> Iterator[tuple[EventPosition, bytes]]:
    # What is no batch is buried whole and handled by nobody.
    with suppress(BadBatchError):
        batch = from_entry(entry)
        for seq, line in enumerate(batch.lines, batch.first_seq):
            if seq >= first_seq:
                yield (producer, batch.epoch, seq), line
