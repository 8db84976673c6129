"""The task that follows the feed, on a feed in memory and snapshots on disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from service.live.feed_follower import FeedFollower
from service.live.live_state import LiveState
from telemetry.batch import Position
from telemetry.live.feed_entry import ErasedUser, FeedEntry, encode_entry
from telemetry.live.live_event import LiveEvent
from telemetry.live.live_feed_reader import FeedBatch, LiveFeedReader
from telemetry.live.state_manifest import StateManifest
from telemetry.stream.memory_feed_stream import MemoryFeed, MemoryFeedStream
from tests.support.live.live_events import event, marks_of

Until = Callable[..., Awaitable[None]]


class Site:
    """A feed, its writer, and followers of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.feed = MemoryFeed()
        self.writer = MemoryFeedStream(self.feed)
        self.last = Position(0, 0)
        self.may_follow = True

    async def begin(self, generation: int) -> None:
        StateManifest("a", Position(generation, 0), {}, 0, 365, 100, ()).write(self.directory)
        await self.writer.connect()
        await self.writer.begin(generation, encode_entry(FeedEntry()))
        self.last = Position(generation, 1)

    async def publish(self, events: list[LiveEvent], erased: list[ErasedUser] | None = None) -> None:
        self.last = Position(self.last.epoch, self.last.seq + 1)
        entry = FeedEntry(events, erased or [], marks=marks_of(events))
        assert await self.writer.append(self.last, encode_entry(entry), first_kept=1)

    @asynccontextmanager
    async def follower(self, delays: list[float] | None = None) -> AsyncIterator[tuple[LiveState, FeedFollower]]:
        state = LiveState(100)
        follower = FeedFollower(
            LiveFeedReader(MemoryFeedStream(self.feed), self.directory, look_every_s=0),
            state,
            may_follow=lambda: self.may_follow,
            on_delay=([] if delays is None else delays).append,
        )
        running = asyncio.create_task(follower.run())
        await follower.wait_until_caught_up(10 if self.may_follow else 0.01)
        try:
            yield state, follower
        finally:
            assert not running.done()
            running.cancel()
            await asyncio.wait([running])


def items(state: LiveState, user_id: str = "u1") -> list[str]:
    found = state.user(user_id)
    return [] if found is None else [one.item_id for one in found.events]


async def test_every_follower_gets_every_event(tmp_path: Path, await_until: Until) -> None:
    """Also a large entry, and with the time that each event took."""
    site, delays = Site(tmp_path), list[float]()
    await site.begin(5)
    async with site.follower(delays) as (one, follower), site.follower() as (other, _):
        await site.publish([event(1), event(2, user_id="u2")])
        await site.publish([event(seq, seq, user_id=f"u{seq}") for seq in range(3, 700)])
        for state in (one, other):
            await await_until(lambda state=state: state.position == site.last)
            assert (items(state), items(state, "u2"), items(state, "u699")) == (["i1"], ["i2"], ["i699"])
        assert follower.connected
        assert follower.last_entry_s is not None
        assert len(delays) == 699
        assert min(delays) > 0


async def test_an_outage_loses_nothing(tmp_path: Path, await_until: Until) -> None:
    """What was published meanwhile comes after it; after a lost feed the new generation's snapshot counts."""
    site = Site(tmp_path)
    await site.begin(5)
    async with site.follower() as (state, follower):
        await site.publish([event(1)])
        await await_until(lambda: items(state) == ["i1"])
        site.feed.reachable = False
        await await_until(lambda: not follower.connected)
        site.feed.reachable = True
        await site.publish([event(2)])
        await await_until(lambda: items(state) == ["i1", "i2"])
        site.feed.flush_all()
        await site.begin(9)
        await await_until(lambda: state.position == Position(9, 1))
        # The snapshot of this test holds nobody.
        assert items(state) == []


async def test_another_installations_feed_is_not_read(tmp_path: Path, await_until: Until) -> None:
    """Nothing is applied while the namespace is not this installation's."""
    site = Site(tmp_path)
    site.may_follow = False
    await site.begin(5)
    async with site.follower() as (state, follower):
        await site.publish([event(1)])
        await asyncio.sleep(0)
        assert (items(state), follower.connected) == ([], False)
        site.may_follow = True
        await await_until(lambda: items(state) == ["i1"])


async def test_an_erasure_comes_through_the_feed(tmp_path: Path, await_until: Until) -> None:
    """After the events of its entry."""
    site = Site(tmp_path)
    await site.begin(5)
    async with site.follower() as (state, _):
        state.accept([event(1, producer="own", received_ms=10)])
        await site.publish([event(2, received_ms=20), event(3, received_ms=40)], [ErasedUser("u1", 30)])
        await await_until(lambda: items(state) == ["i3"])
        assert state.user("u2") is None


async def test_without_redis_the_snapshot_is_loaded(tmp_path: Path) -> None:
    """And without a snapshot a replica starts all the same."""
    site = Site(tmp_path)
    await site.begin(5)
    site.feed.reachable = False
    async with site.follower() as (state, follower):
        assert (state.position, follower.connected) == (Position(5, 0), False)
    site.directory = tmp_path / "none"
    async with site.follower() as (state, _):
        assert state.position == Position(0, 0)


async def test_other_followers_get_every_batch_and_delay_nothing(tmp_path: Path, await_until: Until) -> None:
    """A follower that is slow, as one that reads a large snapshot, gets the rest later and in order."""
    site, found, goes_on = Site(tmp_path), list[str](), asyncio.Event()

    async def follow(batch: FeedBatch) -> None:
        await goes_on.wait()
        found.extend(["snapshot"] if batch.snapshot is not None else [one.item_id for one in batch.events])

    await site.begin(5)
    state = LiveState(100)
    reader = LiveFeedReader(MemoryFeedStream(site.feed), tmp_path, look_every_s=0)
    follower = FeedFollower(reader, state, on_batch=follow)
    running = asyncio.create_task(follower.run())
    for seq in (1, 2, 3):
        await site.publish([event(seq)])
    await await_until(lambda: items(state) == ["i1", "i2", "i3"])
    assert found == []
    goes_on.set()
    await follower.wait_until_caught_up(10)
    assert found == ["snapshot", "i1", "i2", "i3"]
    running.cancel()
    await asyncio.wait([running])


async def test_a_follower_that_fails_ends_the_task(tmp_path: Path, await_until: Until) -> None:
    """The replica is not ready then, and starts again."""
    site = Site(tmp_path)
    await site.begin(5)

    async def fail(_batch: FeedBatch) -> None:
        raise ZeroDivisionError

    follower = FeedFollower(LiveFeedReader(MemoryFeedStream(site.feed), tmp_path), LiveState(100), on_batch=fail)
    running = asyncio.create_task(follower.run())
    await await_until(running.done)
    assert isinstance(running.exception(), ExceptionGroup)
