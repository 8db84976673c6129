"""Live state at the consumer: a sink that publishes committed events, and the job that keeps the state snapshot.

Invariants:

- What is committed in a lease is pending or in the store, and is offered to the feed. What was committed before is read
  from the archive when the lease begins, from the marks of the stored state on. So nothing that a killed process
  committed and did not publish is missing, and a new generation tells every replica.
- Neither Redis nor the disk of the state keeps the consumer from archiving: `write` waits for nothing.
- A generation begins only after a snapshot that includes everything offered before it.
- A user is erased here when no file of the state and no entry of the feed holds an event that falls under the erasure.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from telemetry.archive.archive import Archive
from telemetry.archive.retention import last_retired_day
from telemetry.consumer.sinks import CommittedEvents
from telemetry.consumer.unsaved_state import UnsavedState
from telemetry.counters import LiveCounters
from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.erasure.erasure_requests import open_requests
from telemetry.errors import ArchiveError, LeaseLostError, StateError
from telemetry.events import Record
from telemetry.failpoints import Failpoints
from telemetry.live.archive_tail import is_compacted
from telemetry.live.feed_entry import ErasedUser
from telemetry.live.feed_publisher import FeedPublisher
from telemetry.live.layer_merge import KeepRules
from telemetry.live.live_event import LiveEvent, live_types, unix_ms
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_restore import Wanted, restore
from telemetry.live.state_store import StateStore
from telemetry.notes import Observer, StateFailed, StateRestored, notify
from telemetry.settings import LiveSettings
from telemetry.stream.feed_stream import FeedStream

_CHECK_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_ERASE_PATIENCE_S: Final = 5.0
_LAST_SAVE_S: Final = 5.0
_THREAD: Final = "live-state"
# More than these are saved before the interval has passed.
_MOST_PENDING: Final = 50_000
# A snapshot is saved when the feed has this share of its bytes that no snapshot includes.
_UNSAVED_SHARE: Final = 0.25
_OVERFLOWED: Final = "More live events arrived than may wait in memory; the archive is read for them."
_DAY_MS: Final = 86_400_000
_DATE_LENGTH: Final = len("2026-11-21")


class LiveFeed:
    """The live state of one archive, while its lease is held: a `Sink`, a `UserEraser` and a job.

    Args:
        directory: Of the state snapshot.
    """

    name = "live"

    def __init__(
        self,
        stream: FeedStream,
        directory: Path,
        settings: LiveSettings,
        observer: Observer | None = None,
        *,
        failpoints: Failpoints | None = None,
        heartbeat_s: float = 1.0,
    ) -> None:
        self._stream = stream
        self._settings = settings
        self._observer = observer
        self._failpoints = failpoints or Failpoints()
        self._heartbeat_s = heartbeat_s
        self._types = tuple(sorted(live_types(impressions=settings.impressions)))
        self._directory = directory
        self._archive: Archive | None = None
        # Set while the namespace in Redis is the archive's.
        self._allowed = asyncio.Event()
        self.counters = LiveCounters()
        self._forget()

    def _forget(self) -> None:
        """Forget what an earlier lease held: another consumer may have archived since."""
        self._publisher = FeedPublisher(
            self._stream,
            lambda: self._unsaved.marks,
            self._allowed,
            self.counters,
            feed_bytes=self._settings.feed_bytes,
            heartbeat_s=self._heartbeat_s,
            observer=self._observer,
            failpoints=self._failpoints,
        )
        # A thread of an earlier lease that hangs in its disk may still use its own.
        self._store = StateStore(self._directory, self._failpoints)
        self._saving = asyncio.Lock()
        self._saves: set[asyncio.Task[None]] = set()
        self._unsaved = UnsavedState(self._types, {})
        self._saved_items: tuple[int, str | None] = (0, None)
        self._part = ""
        self._lengths: dict[str, int] = {}
        self._generation = 0
        self._saved_s = 0.0
        self.counters.restored = False

    async def write(self, commit: CommittedEvents) -> None:
        """Publish the live events of a commit, and keep them for the next snapshot."""
        if self._archive is None:
            return
        entry = self._unsaved.add(commit, self._may_hold)
        # Rotated since the commit or not: what was committed so far is included.
        self._part, self._lengths = self._archive.part, self._archive.part_lengths
        self.counters.restored = self.counters.restored and not self._unsaved.overflowed
        self.counters.unsaved_events = len(self._unsaved)
        if entry is not None:
            self.counters.events += len(entry.events)
            self._publisher.offer(entry)

    async def erase(self, requested: Mapping[str, str]) -> Mapping[str, int]:
        """Remove users from the files of the state and from the feed.

        Raises:
            StateError: The state is not restored yet, or Redis does not answer and may hold their events.
            ArchiveError: The lease is lost.
            OSError: The files cannot be written.
        """
        if not self.counters.restored:
            raise StateError("The live state is not restored yet.")
        users = [ErasedUser(user_id, unix_ms(at)) for user_id, at in requested.items()]
        if self._unsaved.erase(users, self._may_hold):
            await self._save(renew=True, purge=True)
        try:
            async with asyncio.timeout(_ERASE_PATIENCE_S):
                await self._publisher.begun.wait()
        except TimeoutError:
            raise StateError("Redis does not answer, and may hold events of erased users in the feed.") from None
        return {}

    def set_connected(self, *, connected: bool) -> None:
        """Note whether Redis answers and the namespace is the archive's; without that nothing is published."""
        if connected:
            self._allowed.set()
        else:
            self._allowed.clear()

    async def run(self, archive: Archive) -> None:
        """Restore the state and keep its snapshot until cancelled, and then save it.

        Raises:
            LeaseLostError: Another consumer holds the archive.
        """
        self._forget()
        self._archive = archive
        self._unsaved, self._part = UnsavedState(self._types, archive.watermarks), archive.part
        publishing = asyncio.create_task(self._publisher.run(), name="feed-publisher")
        try:
            await self._repeat(self._restore)
            while True:
                await self._wait_until_due()
                await self._repeat(self._save_or_restore)
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await self._end_lease()

    async def _end_lease(self) -> None:
        """Save what no snapshot includes; a disk that hangs is not waited for without end."""
        try:
            async with asyncio.timeout(_LAST_SAVE_S):
                if self.counters.restored and self._unsaved.is_changed:
                    await self._save()
                # One that goes on without its caller.
                async with self._saving:
                    pass
        except (ArchiveError, StateError, OSError) as error:
            # A timeout is an OSError, too.
            self._failed(error)
        for save in self._saves:
            save.cancel()
        self.counters.restored = False
        self._archive = None

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work, again while it fails."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await work()
            except LeaseLostError:
                raise
            except Exception as error:  # noqa: BLE001 - a fault of the live state must not stop the archive
                self._failed(error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _save_or_restore(self) -> None:
        await (self._save() if self.counters.restored else self._restore())

    async def _restore(self) -> None:
        started_s = time.monotonic()
        archive, settings = self._held_archive, self._settings
        requests = await archive.read_catalogue(open_requests)
        while requests:
            # Their lines may still be in the archive; they are erased here with the next round.
            users = [ErasedUser(request.user_id, unix_ms(request.requested_at)) for request in requests]
            self._unsaved.erase(users, self._may_hold)
            requests = await archive.read_catalogue(open_requests, requests[-1])
        # What is committed from here on is pending.
        self._unsaved.overflowed = False
        before = self._manifest(await _horizon_ms(archive, settings.days), await _compacted_files(archive))
        wanted = Wanted(
            before.archive,
            dict(archive.watermarks),
            before.since_ms,
            settings.days,
            settings.events_per_user,
            self._types,
        )
        stop = threading.Event()
        try:
            restored = await run_in_daemon_thread(partial(restore, archive.root, self._store, wanted, stop), _THREAD)
        finally:
            # After a cancellation the thread ends by itself.
            stop.set()
        self._failpoints.hit("live.restored")
        for record in restored.items.records():
            self._unsaved.items.apply(record)
        self._unsaved.since_ms, self._generation = restored.since_ms, restored.position.epoch
        if self._unsaved.overflowed:
            # What was read is kept, so that the next attempt has less to read.
            before = replace(before, position=restored.position, since_ms=restored.since_ms)
            await self._write(before, [], restored.items.records(), purge=False)
            raise StateError(_OVERFLOWED)
        await self._save(renew=True)
        await run_in_daemon_thread(self._store.remove_remains, _THREAD)
        self.counters.restored = True
        self.counters.catch_up_events += restored.events
        self.counters.rebuilds += restored.rebuilt is not None
        notify(self._observer, StateRestored(restored.events, time.monotonic() - started_s, restored.rebuilt))

    async def _wait_until_due(self) -> None:
        """Wait until a snapshot is due: of changes, of the feed's length, or because the feed or the files are lost."""
        settings, publisher, unsaved = self._settings, self._publisher, self._unsaved
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_CHECK_S, settings.snapshot_interval_s)):
                    await publisher.broken.wait()
            if publisher.broken.is_set() or unsaved.overflowed:
                return
            waited_s = time.monotonic() - self._saved_s
            if unsaved.is_changed and (waited_s >= settings.snapshot_interval_s or len(unsaved) >= _MOST_PENDING):
                return
            if publisher.unsaved_bytes >= _UNSAVED_SHARE * settings.feed_bytes:
                return
            async with self._saving:
                if not await run_in_daemon_thread(self._store.is_intact, _THREAD):
                    self._saved_items = (0, None)
                    return

    async def _save(self, *, renew: bool = False, purge: bool = False) -> None:
        """Save a snapshot of everything up to now.

        Args:
            renew: Whether the feed begins a new generation with it.
            purge: Whether erased users are removed from the layers; otherwise readers leave their events out.
        """
        # It goes on when the caller is cancelled, so that no file is replaced by an older one.
        save = asyncio.create_task(self._save_now(renew=renew, purge=purge))
        self._saves.add(save)
        try:
            await asyncio.shield(save)
        finally:
            if not save.done():
                # Its error, if any, then reaches no caller.
                save.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            save.add_done_callback(self._saves.discard)

    async def _save_now(self, *, renew: bool, purge: bool) -> None:
        async with self._saving:
            await self._save_alone(renew=renew, purge=purge)

    async def _save_alone(self, *, renew: bool, purge: bool) -> None:
        started_s = time.monotonic()
        # Before the state of the snapshot is fixed: a later compaction may have later events.
        archive = self._held_archive
        compacted = await _compacted_files(archive)
        unsaved = self._unsaved
        since_ms = max(await _horizon_ms(archive, self._settings.days), unsaved.since_ms)
        if unsaved.overflowed:
            raise StateError(_OVERFLOWED)
        events, erased = unsaved.take(), dict(unsaved.erased)
        renew = renew or not self._publisher.begun.is_set()
        if renew:
            self._generation = self._publisher.restart(self._generation)
        revision = unsaved.items.revision
        records = unsaved.items.records() if revision != self._saved_items[0] else None
        try:
            manifest = await self._write(self._manifest(since_ms, compacted), events, records, purge=purge)
        except BaseException:
            unsaved.put_back()
            raise
        unsaved.taken_saved()
        self._saved_items, unsaved.since_ms = (revision, manifest.items), manifest.since_ms
        if purge:
            unsaved.purged(erased)
        self._publisher.saved()
        if renew:
            self._publisher.release()
        self._saved_s = time.monotonic()
        self._count_save(self._saved_s - started_s)

    def _manifest(self, since_ms: int, compacted: tuple[str, ...]) -> StateManifest:
        """Return the manifest of a snapshot that includes everything up to now."""
        return StateManifest(
            self._held_archive.identity.archive,
            self._publisher.snapshot_position,
            self._unsaved.marks,
            since_ms,
            self._settings.days,
            self._settings.events_per_user,
            self._types,
            items=self._saved_items[1],
            erased={key.hex(): requested_ms for key, requested_ms in self._unsaved.erased.items()},
            part=self._part,
            lengths=self._lengths,
            compacted=compacted,
        )

    async def _write(
        self, manifest: StateManifest, events: list[LiveEvent], items: list[Record] | None, *, purge: bool
    ) -> StateManifest:
        """Write a snapshot with some more events; returns its manifest."""
        store, limit_bytes = self._store, self._settings.state_bytes
        erased = {bytes.fromhex(key): requested_ms for key, requested_ms in manifest.erased.items()}
        rules = KeepRules(manifest.most_events, manifest.since_ms, erased)
        if purge:
            manifest = replace(manifest, erased={})
        prepare = partial(store.prepare, manifest, rules, events, items, limit_bytes, purge=purge)
        manifest = await run_in_daemon_thread(prepare, _THREAD)
        # A consumer that lost its lease must not replace its successor's snapshot.
        await self._held_archive.beat()
        await run_in_daemon_thread(partial(store.save, manifest), _THREAD)
        return manifest

    def _count_save(self, duration_s: float) -> None:
        counters, store = self.counters, self._store
        counters.snapshots += 1
        counters.snapshot_s += duration_s
        counters.snapshot_bytes, counters.snapshot_events = store.size_bytes, store.n_events
        counters.saved_at_s = time.time()
        counters.unsaved_events = len(self._unsaved)

    def _may_hold(self, key: bytes) -> bool:
        """Whether the state holds a user, by digest; until it is restored, it may hold anyone."""
        return not self.counters.restored or self._store.has_user(key)

    @property
    def _held_archive(self) -> Archive:
        if self._archive is None:
            raise LeaseLostError("This consumer does not hold the archive's lease.")
        return self._archive

    def _failed(self, error: Exception) -> None:
        self.counters.snapshot_failures += 1
        notify(self._observer, StateFailed(str(error)))


async def _compacted_files(archive: Archive) -> tuple[str, ...]:
    """Return the files of an archive that no part's name places in time."""
    return tuple(path for path in await archive.sealed_files() if is_compacted(path))


async def _horizon_ms(archive: Archive, days: int) -> int:
    """Return the horizon of some days, or of the archive's retention if that is later; Unix time in milliseconds."""
    horizon_ms = unix_ms(f"{archive.days_ago(days)[:_DATE_LENGTH]}T00:00:00.000Z")
    retired = await archive.read_catalogue(last_retired_day)
    return horizon_ms if retired is None else max(horizon_ms, unix_ms(f"{retired}T00:00:00.000Z") + _DAY_MS)
