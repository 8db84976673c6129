"""The consumer job: from the streams into the archive, one active consumer at a time.

Invariants: only the holder of the archive's lease reads. Cancellation never interrupts the archiving of a read
(`entry_archiver.py`). No event blocks the others: one that fails is tried in three rounds, one that kills its consumer
is found by its delivery attempts, and both become dead letters.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from telemetry.archive.archive import Archive
from telemetry.batch import Position
from telemetry.consumer.context import ConsumerContext
from telemetry.consumer.entry_archiver import EntryArchiver
from telemetry.consumer.erasure_job import ErasureJob
from telemetry.consumer.event_reader import EventCheck
from telemetry.consumer.live_feed import LiveFeed
from telemetry.consumer.namespace_hold import NamespaceHold
from telemetry.consumer.retention_job import RetentionJob
from telemetry.consumer.seen_expiry_job import SeenExpiryJob
from telemetry.consumer.sinks import Sink
from telemetry.consumer.subscription import NEW_STREAM_POLL_S, Subscription
from telemetry.erasure.erasure import UserEraser
from telemetry.errors import ArchiveError, LeaseLostError, StreamAwayError, StreamError
from telemetry.failpoints import Failpoints
from telemetry.notes import Connected, Disconnected, LeaseLost, LeaseTaken, Observer
from telemetry.settings import ConsumerSettings
from telemetry.shielding import shield_until_done
from telemetry.stream.event_stream import Delivered, EventStream

_FIRST_BACKOFF_S: Final = 0.05
# The cause of a failure may pass within three tries, and later events do not wait long for them.
_BETWEEN_TRIES_S: Final = 0.05
_DRAIN_BLOCK_MS: Final = 1


class Consumer:
    """One consumer process.

    Args:
        archive: Closed when `run` ends.
        sinks: Given the events of each commit, in this order.
        user_erasers: Erase users from places other than the archive.
        live: Keeps the live state; given the events of each commit, too.
        check: Called with each event before it is archived; an error that it raises is the event's failure.
    """

    def __init__(
        self,
        stream: EventStream,
        archive: Archive,
        sinks: Sequence[Sink],
        settings: ConsumerSettings,
        observer: Observer | None = None,
        *,
        user_erasers: Sequence[UserEraser] = (),
        live: LiveFeed | None = None,
        check: EventCheck | None = None,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._stream = stream
        self._archive = archive
        self._settings = settings
        self._context = context = ConsumerContext(settings, observer, failpoints or Failpoints())
        self.counters = context.counters
        self._namespace = NamespaceHold(stream, archive)
        self._subscription = Subscription(stream, context)
        self._live = live
        more: tuple[LiveFeed, ...] = () if live is None else (live,)
        self._erasure_job = ErasureJob(archive, [*more, *user_erasers], context)
        self._retention_job = RetentionJob(archive, context)
        self._seen_expiry_job = SeenExpiryJob(archive, context)
        self._archiver = EntryArchiver(
            stream, archive, self._subscription, [*more, *sinks], self._erasure_job, context, check
        )
        self._read_entries = settings.read_entries
        # Set by a round that finds the streams empty, while `drain` waits.
        self._emptied: asyncio.Event | None = None
        self._connections = 0
        self._outage_reported = False

    async def run(self) -> None:
        """Hold or await the lease, and archive, until cancelled."""
        try:
            while True:
                try:
                    await self._hold_lease()
                except LeaseLostError:
                    self._context.notify(LeaseLost())
                except ArchiveError as error:
                    # The state of the disk is uncertain, so it is read again from the start.
                    self._context.archive_failed(error)
                self.counters.active = False
                with suppress(ArchiveError):
                    await self._archive.release()
                await asyncio.sleep(self._settings.backoff_s)
        finally:
            self.counters.active = False
            self.counters.connected = False
            await self._stream.close()
            # On failure the lease expires by itself; the caller is being cancelled.
            with suppress(ArchiveError):
                await self._archive.close()

    async def drain(self, deadline_s: float) -> bool:
        """Wait until the present content of the streams is archived, while `run` goes on.

        Returns:
            Whether nothing was left; True for a standby.
        """
        if not self.counters.active:
            return True
        self._emptied = asyncio.Event()
        # New streams are drained too.
        self._subscription.refresh_soon()
        try:
            async with asyncio.timeout(deadline_s):
                await self._emptied.wait()
        except TimeoutError:
            return False
        finally:
            self._emptied = None
        return True

    async def _hold_lease(self) -> None:
        epoch = await self._archive.acquire(self._settings.takeover_s, self._context.notify)
        self._subscription.own_pending.clear()
        self.counters.active = True
        self._context.notify(LeaseTaken(epoch))
        for path in self._archive.damaged:
            self._context.archive_failed(ArchiveError(f"{path} in the archive is shorter than its committed length."))
        jobs = (
            # First: it reads what was archived before this lease.
            *(() if self._live is None else (self._live.run(self._archive),)),
            self._keep_lease(),
            self._read_streams(),
            self._seen_expiry_job.run(),
            self._erasure_job.run(),
            self._retention_job.run(),
        )
        tasks = [asyncio.create_task(job) for job in jobs]
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
                # Without events no commit rotates the files.
                await shield_until_done(self._archive.seal(if_due=True))
            except LeaseLostError:
                raise
            except ArchiveError as error:
                # A late heartbeat is harmless; if the archive cannot be written, the next commit fails too.
                self._context.archive_failed(error)

    async def _read_streams(self) -> None:
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
        await self._namespace.ensure()
        if self._live is not None:
            self._live.set_connected(connected=True)
        self._subscription.reconnected()
        self._connections += 1
        self.counters.reconnects = self._connections - 1

    async def _round(self) -> None:
        emptied, subscription = self._emptied, self._subscription
        if subscription.refresh_due:
            await self._namespace.ensure()
            await self._refresh()
        if subscription.groupless and await self._read_groupless():
            return
        if not subscription.joined:
            if emptied is not None:
                emptied.set()
            await asyncio.sleep(NEW_STREAM_POLL_S)
            return
        if subscription.recheck:
            await self._read_pending()
            return
        # Under light load this gathers more events for each fsync.
        await asyncio.sleep(max(self._archiver.next_commit_s - time.monotonic(), 0))
        block_ms = self._settings.block_ms if emptied is None else _DRAIN_BLOCK_MS
        deliveries = await self._read(sorted(subscription.joined), pending=False, block_ms=block_ms)
        if deliveries:
            await shield_until_done(self._archiver.archive(deliveries, pending=False))
        elif emptied is not None:
            emptied.set()

    async def _refresh(self) -> None:
        await self._subscription.refresh(self._archive.watermarks)
        if not self.counters.connected:
            self.counters.connected = True
            self._outage_reported = False
            self._context.notify(Connected())

    async def _read_pending(self) -> None:
        if self._archiver.failing:
            await asyncio.sleep(_BETWEEN_TRIES_S)
        subscription = self._subscription
        deliveries = await self._read(sorted(subscription.recheck), pending=True, block_ms=0)
        delivered = {delivery.producer for delivery in deliveries}
        subscription.own_pending |= subscription.recheck - delivered
        subscription.recheck &= delivered
        await self._archive_pending(deliveries)

    async def _read_groupless(self) -> bool:
        """Read streams whose group a full Redis has no room for; returns whether there was something."""
        watermarks = self._archive.watermarks
        positions = {name: watermarks.get(name, Position(0, 0)) for name in sorted(self._subscription.groupless)}
        deliveries = await self._stream.scan(positions, max_entries=self._read_entries)
        await self._archive_pending(deliveries)
        # An entry that killed an earlier consumer was among the first ones.
        self._subscription.own_pending.update(delivery.producer for delivery in deliveries)
        if self._archiver.failing:
            await asyncio.sleep(_BETWEEN_TRIES_S)
        return bool(deliveries)

    async def _archive_pending(self, deliveries: Sequence[Delivered]) -> None:
        own_pending = self._subscription.own_pending
        own = [delivery for delivery in deliveries if delivery.producer in own_pending]
        if own:
            await shield_until_done(self._archiver.archive(own, pending=True))
        for producer, entries in deliveries:
            for entry in entries if producer not in own_pending else ():
                if not await shield_until_done(self._archiver.archive_inherited(producer, entry)):
                    # Later entries wait for it, or it would look like a hole.
                    break

    async def _read(self, producers: Sequence[str], *, pending: bool, block_ms: int) -> list[Delivered]:
        """Read entries; after a timeout read fewer at once, so that a slow link does not stop everything."""
        max_entries = self._read_entries
        try:
            deliveries = await self._stream.read(producers, pending=pending, max_entries=max_entries, block_ms=block_ms)
        except StreamAwayError:
            self._read_entries = max(max_entries // 2, 1)
            raise
        if deliveries:
            self._read_entries = min(2 * max_entries, self._settings.read_entries)
            self._context.failpoints.hit("consumer.read")
            self._subscription.busy.update(delivery.producer for delivery in deliveries)
        return deliveries

    def _disconnected(self, error: StreamError) -> None:
        self.counters.connected = False
        if self._live is not None:
            self._live.set_connected(connected=False)
        self.counters.last_error = str(error)
        if not self._outage_reported:
            self._outage_reported = True
            self._context.notify(Disconnected(str(error)))
