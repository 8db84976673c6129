"""The consumer job: from the streams into the archive, one consumer at a time.

Invariant, the order of every round: read, commit to the archive, then acknowledge, publish the watermark and
trim, then the sinks. What was delivered and not committed comes again; what was committed and not
acknowledged comes again and is skipped. So whatever dies between two steps, an event is archived once.

Only the holder of the archive's lease reads. A round is never cut short by cancellation.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress

from telemetry.archive import Archive
from telemetry.counters import ConsumerCounters
from telemetry.errors import ArchiveError, LeaseLostError, StreamError
from telemetry.events import Record
from telemetry.ids import rfc3339_ms
from telemetry.intake import Intake, Plan, plan, sift
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
    tell,
)
from telemetry.settings import ConsumerSettings
from telemetry.sinks import Sink
from telemetry.stream import Delivered, EventStream, Settled

_FIRST_BACKOFF_S = 0.05
# A producer announces itself a moment before its stream begins.
_IMPATIENT_S = 0.1
_EXPIRE_EVERY_BEATS = 60


class Consumer:
    """One consumer process.

    Args:
        stream: The reading end; this object's alone.
        archive: Where events go; closed when `run` ends.
        sinks: What gets the events after each commit, in this order.
        settings: Limits and pauses.
        observer: Told what happens.
    """

    def __init__(
        self,
        stream: EventStream,
        archive: Archive,
        sinks: Sequence[Sink],
        settings: ConsumerSettings,
        observer: ConsumerObserver | None = None,
    ) -> None:
        self._stream = stream
        self._archive = archive
        self._sinks = sinks
        self._settings = settings
        self._observer = observer
        self.counters = ConsumerCounters()
        self._joined: set[str] = set()
        self._recheck: set[str] = set()
        self._connections = 0
        self._outage_told = False
        self._next_discover_s = 0.0
        self._next_commit_s = 0.0

    async def run(self) -> None:
        """Hold or await the lease, and archive, until cancelled."""
        try:
            while True:
                try:
                    await self._hold()
                except LeaseLostError:
                    tell(self._observer, LeaseLost())
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

    async def _hold(self) -> None:
        epoch = await self._archive.acquire(
            self._settings.takeover_s, lambda holder: tell(self._observer, StandingBy(holder))
        )
        self.counters.active = True
        tell(self._observer, LeaseTaken(epoch))
        for path in self._archive.damaged:
            self._failed(ArchiveError(f"{path} in the archive is shorter than its committed length"))
        tasks = {asyncio.create_task(self._keep_lease()), asyncio.create_task(self._work())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_lease(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            try:
                await self._archive.beat()
                beats += 1
                if beats % _EXPIRE_EVERY_BEATS == 0:
                    await self._archive.expire_seen(self._settings.seen_days)
            except LeaseLostError:
                raise
            except ArchiveError as error:
                # A commit decides what to do about it; a beat alone may be late.
                self._failed(error)

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
        # Redis may be another one now: groups are made again, and the pending lists read first.
        self._joined.clear()
        self._recheck.clear()
        self._next_discover_s = 0.0
        self._connections += 1
        self.counters.reconnects = self._connections - 1

    async def _round(self) -> None:
        if time.monotonic() >= self._next_discover_s:
            await self._discover()
        if not self._joined:
            await asyncio.sleep(_IMPATIENT_S)
            return
        if self._recheck:
            deliveries = await self._stream.read(
                sorted(self._recheck), pending=True, max_entries=self._settings.read_entries, block_ms=0
            )
            self._recheck.intersection_update(delivered.producer for delivered in deliveries)
            await _uninterrupted(self._take(deliveries, pending=True))
            return
        # Under light load this gathers more events for each fsync.
        await asyncio.sleep(max(self._next_commit_s - time.monotonic(), 0))
        deliveries = await self._stream.read(
            sorted(self._joined),
            pending=False,
            max_entries=self._settings.read_entries,
            block_ms=self._settings.block_ms,
        )
        if deliveries:
            await _uninterrupted(self._take(deliveries, pending=False))

    async def _discover(self) -> None:
        producers = await self._stream.producers()
        joined = await self._stream.join([name for name in producers if name not in self._joined])
        self._joined |= joined
        self._recheck |= joined
        waiting = len(self._joined) < len(producers)
        self._next_discover_s = time.monotonic() + (_IMPATIENT_S if waiting else self._settings.discover_interval_s)
        watermarks = self._archive.watermarks
        await self._stream.publish({name: watermarks[name] for name in producers if name in watermarks})
        self.counters.producers = len(producers)
        if not self.counters.connected:
            self.counters.connected = True
            self._outage_told = False
            tell(self._observer, Connected())

    async def _take(self, deliveries: Sequence[Delivered], *, pending: bool) -> None:
        intake = sift(deliveries, self._archive.watermarks, pending=pending, now=rfc3339_ms(time.time()))
        self._recheck |= intake.recheck
        agreed = plan(intake, await self._archive.seen(intake.keys()))
        if intake.progress or intake.dead:
            started_s = time.monotonic()
            await self._archive.commit(agreed.folders, intake.progress, agreed.seen)
            self._next_commit_s = started_s + self._settings.commit_interval_s
            self._count(intake, agreed, time.monotonic() - started_s)
        self.counters.redelivered += intake.redelivered
        self.counters.trimmed_pending += intake.trimmed
        try:
            watermarks = self._archive.watermarks
            await self._stream.settle(
                [Settled(name, ids, watermarks.get(name)) for name, ids in intake.settled.items() if ids]
            )
        finally:
            # Committed is committed, whether or not Redis could be told.
            await self._inform(agreed.records)

    async def _inform(self, records: Sequence[Record]) -> None:
        if not records:
            return
        for sink in self._sinks:
            try:
                await sink.take(records)
            except Exception as error:  # noqa: BLE001 - a sink is somebody else's code and must not stop the archive
                self.counters.sink_failures += 1
                tell(self._observer, SinkFailed(sink.name, f"{type(error).__name__}: {error}"))

    def _count(self, intake: Intake, agreed: Plan, duration_s: float) -> None:
        counters = self.counters
        dead_lettered = sum(progress.dead_lettered for progress in intake.progress.values())
        counters.archived += len(agreed.records)
        counters.archived_bytes += sum(len(line) for lines in agreed.folders.values() for line in lines)
        counters.deduplicated += agreed.deduplicated
        counters.dead_lettered += dead_lettered
        counters.sequence_holes += sum(progress.holes for progress in intake.progress.values())
        counters.missing += sum(progress.missing for progress in intake.progress.values())
        counters.commits += 1
        counters.commit_s += duration_s
        for note in intake.notes:
            tell(self._observer, note)
        tell(self._observer, Committed(len(agreed.records), agreed.deduplicated, dead_lettered, duration_s))

    def _disconnected(self, error: StreamError) -> None:
        self.counters.connected = False
        self.counters.last_error = str(error)
        if not self._outage_told:
            self._outage_told = True
            tell(self._observer, Disconnected(str(error)))

    def _failed(self, error: ArchiveError) -> None:
        self.counters.last_error = str(error)
        tell(self._observer, ArchiveFailed(str(error)))


async def _uninterrupted(work: Coroutine[None, None, None]) -> None:
    """Finish a piece of work even if we are cancelled, and be cancelled then."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        # Retrieved, so that it is not reported as forgotten; the cancellation wins.
        if not task.cancelled():
            task.exception()
        raise
