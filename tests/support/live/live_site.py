"""An archive, its live state and followers of it, without consumer and Redis: commits are made by hand."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import date_folder
from telemetry.batch import Position
from telemetry.catalogue.commit import CommitContent, Progress
from telemetry.consumer.context import ConsumerContext
from telemetry.consumer.erasure_job import ErasureJob
from telemetry.consumer.live_feed import LiveFeed
from telemetry.consumer.sinks import CommittedEvents
from telemetry.erasure.erasure import requests_erasure
from telemetry.erasure.erasure_requests import late_event_filter, open_requests
from telemetry.events import Event, Feedback, ItemChange, Record, System, encode
from telemetry.ids import rfc3339_ms
from telemetry.live.live_event import unix_ms
from telemetry.notes import Note, StateRestored
from telemetry.settings import ConsumerSettings, LiveSettings
from telemetry.stream.memory_feed_stream import MemoryFeed, MemoryFeedStream
from tests.reference.live_state import item_changes, live_state
from tests.support import sample_events
from tests.support.live.live_follower import LiveFollower

NOW_MS = unix_ms("2026-11-21T12:00:00.000Z")
HEARTBEAT_S = 0.01
USERS = ("a", "b", "c")
# Snapshots are saved when a test asks for them, or when something is lost.
BY_HAND = LiveSettings(snapshot_interval_s=1e6, events_per_user=4, feed_bytes=1 << 20)


def feedback(user: str, at_ms: int, **changes: object) -> Feedback:
    """Return a rating received some milliseconds after noon."""
    return sample_events.feedback(
        user_id=user,
        received_at=rfc3339_ms((NOW_MS + at_ms) / 1000),
        **{"type": "rating", "value": 4.5, "item_id": f"i{at_ms % 7}", **changes},
    )


def erasure(user: str, at_ms: int, name: str = "erase-1") -> System:
    """Return the request to erase a user."""
    at = rfc3339_ms((NOW_MS + at_ms) / 1000)
    return System(event_id=name, tenant="default", client_time=None, received_at=at, kind="erase", user_id=user)


def item_change(item: str, at_ms: int, **changes: object) -> ItemChange:
    """Return a change of an item's title."""
    return ItemChange(
        event_id=f"it-{at_ms:06d}",
        tenant="default",
        client_time=None,
        received_at=rfc3339_ms((NOW_MS + at_ms) / 1000),
        request_id="r",
        kind="put",
        item_id=item,
        **{"title": f"title {at_ms}", **changes},  # type: ignore[arg-type]
    )


class LiveSite:
    """One archive, one feed, and the consumer's live state while it runs."""

    def __init__(self, home: Path, settings: LiveSettings = BY_HAND) -> None:
        self.root = home / "archive"
        self.directory = home / "state"
        self.settings = settings
        self.feed = MemoryFeed()
        self.notes: list[Note] = []
        self.marks: dict[str, Position] = {}
        self.archive: Archive
        self.live: LiveFeed
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, wait: bool = True) -> None:
        """Acquire the archive and restore the live state."""
        self.archive = Archive(self.root, wall_clock=lambda: NOW_MS / 1000)
        await self.archive.acquire(0.1)
        self.live = LiveFeed(
            MemoryFeedStream(self.feed), self.directory, self.settings, self.notes.append, heartbeat_s=HEARTBEAT_S
        )
        self.live.set_connected(connected=True)
        self._task = asyncio.create_task(self.live.run(self.archive))
        # The state begins with what is archived now.
        await asyncio.sleep(0)
        while wait and not self.live.counters.restored:
            assert not self._task.done()
            await asyncio.sleep(0.001)

    async def kill(self) -> None:
        """End as after SIGKILL: nothing more is saved or published."""
        self.live.counters.restored = False
        await self.stop()

    async def stop(self) -> None:
        """End as after SIGTERM."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            await self.archive.close()

    async def commit(self, producer: str, *events: Event, published: bool = True) -> None:
        """Archive events of a producer, as the consumer does, and pass them to the live state unless it dies before."""
        at = self.marks.get(producer, Position(1, 0))
        content, records = CommitContent(), []
        progress = content.progress[producer, at.epoch] = Progress(at.seq)
        for event in events:
            progress.seq += 1
            record = Record(event, producer, at.epoch, progress.seq)
            line = encode(*record)
            if requests_erasure(record):
                late = await self.archive.read_catalogue(late_event_filter, (), "")
                record, line, request = late.redact(record, line)
                content.erasures.append(request)
            records.append(record)
            progress.archived += 1
            content.folders.setdefault(date_folder(event.received_at), []).append(line)
        await self.archive.commit(content)
        self.marks[producer] = Position(at.epoch, progress.seq)
        if published:
            await self.live.write(CommittedEvents(records, content.erasures, self.archive.watermarks))

    async def skip(self, producer: str, count: int = 1) -> None:
        """Commit that some events of a producer were duplicates."""
        at = self.marks.get(producer, Position(1, 0))
        content = CommitContent()
        content.progress[producer, at.epoch] = Progress(at.seq + count, deduplicated=count)
        await self.archive.commit(content)
        self.marks[producer] = Position(at.epoch, at.seq + count)
        await self.live.write(CommittedEvents([], [], self.archive.watermarks))

    async def erase_users(self) -> None:
        """Do one round of the erasure job."""
        job = ErasureJob(self.archive, [self.live], ConsumerContext(ConsumerSettings(), self.notes.append))
        running = asyncio.create_task(job.run())
        try:
            while await self.archive.read_catalogue(open_requests):  # noqa: ASYNC110 - the catalogue has no events
                await asyncio.sleep(0.001)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def follower(self) -> LiveFollower:
        """Return a new follower, not connected yet."""
        return LiveFollower(MemoryFeedStream(self.feed), self.directory)

    async def catch_up(self, follower: LiveFollower) -> None:
        """Read until the follower has the marks of the archive and the latest generation."""
        await follower.reader.connect()
        async with asyncio.timeout(20):
            await self.live._publisher.begun.wait()
            generation = self.live.counters.generation
            while follower.marks != self.marks or follower.reader.position.epoch < generation:
                await follower.read()
                await asyncio.sleep(0.001)


def state_of(follower: LiveFollower, users: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Return the producers and numbers of the events of each user, for readable comparisons."""
    return {
        user: [(event.position.producer, event.position.seq) for event in events]
        for user, events in follower.state(users).items()
    }


async def check_followers(site: LiveSite, *followers: LiveFollower, most: int = 4, since_ms: int = 0) -> None:
    """Check that followers, old and new, have the state that the archive has by definition."""
    expected = live_state(site.root, most, since_ms)
    for follower in (*followers, site.follower()):
        await site.catch_up(follower)
        assert follower.state(USERS) == expected
        assert {change.item_id: change for change in follower.items.changes()} == {
            item: record.event for item, record in item_changes(site.root).items()
        }


def restored_note(site: LiveSite) -> StateRestored:
    """Return the last note on a restored state."""
    return [note for note in site.notes if isinstance(note, StateRestored)][-1]
