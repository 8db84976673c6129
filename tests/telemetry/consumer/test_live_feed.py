"""What the consumer publishes of live state, whatever becomes of Redis."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from telemetry.batch import Position
from tests.support import sample_events
from tests.support.live.live_site import BY_HAND, USERS, LiveSite, check_followers, feedback, item_change, state_of

AwaitUntil = Callable[..., Awaitable[None]]


async def test_followers_have_what_is_committed(site: LiveSite) -> None:
    """The last events of each user by time, whatever the order of arrival; marks move with every commit."""
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 5), feedback("b", 4), sample_events.served())
    await site.commit("q", *(feedback("a", at_ms) for at_ms in (9, 1, 7, 3)), item_change("i1", 1))
    await site.commit("p", feedback("c", 3, marks=["id_conflict"]), feedback("c", 2, type="impression"))
    await site.skip("q", 2)
    await check_followers(site, follower)
    assert state_of(follower, USERS) == {"a": [("q", 4), ("p", 1), ("q", 3), ("q", 1)], "b": [("p", 2)]}
    assert follower.marks == {"p": Position(1, 5), "q": Position(1, 7)}
    await site.commit("q", item_change("i1", 9), item_change("i1", 5))
    await check_followers(site, follower)


@pytest.mark.parametrize("loss", ["flush", "trim", "hole", "foreign entry"])
async def test_what_redis_loses_begins_a_new_generation(site: LiveSite, await_until: AwaitUntil, loss: str) -> None:
    """Without any further event, and under traffic."""
    await site.start()
    followers = [site.follower() for _ in range(2)]
    for number in range(4):
        await site.commit("p", feedback("a", number), feedback("b", number))
        await check_followers(site, followers[0])
        generation = site.live.counters.generation
        await await_until(lambda: len(site.feed.entries or ()) >= 4)
        entries = site.feed.entries
        assert entries is not None
        if loss == "flush":
            site.feed.flush_all()
        elif loss == "trim":
            del entries[min(entries)]
        elif loss == "hole":
            del entries[sorted(entries)[2]]
        else:
            site.feed.add(Position(site.feed.last.epoch, site.feed.last.seq + 1), b"nonsense", min(entries))
        await site.commit("p", feedback("c", number))
        await await_until(lambda generation=generation: site.live.counters.generation > generation)
        await check_followers(site, *followers)


async def test_an_outage_of_redis_holds_up_nothing(site: LiveSite, await_until: AwaitUntil) -> None:
    """Commits go on and snapshots are saved; afterwards every follower has everything."""
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1))
    await check_followers(site, follower)
    for full in (False, True):
        site.feed.reachable, site.feed.full = full, full
        for at_ms in range(10, 20):
            await site.commit("p", feedback("a", at_ms + 10 * full), feedback("b", at_ms))
            if at_ms == 15:
                await site.live._save()
        site.feed.reachable, site.feed.full = True, False
        await check_followers(site, follower)


async def test_a_long_outage_fills_no_memory(site: LiveSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many events a snapshot replaces the queue."""
    monkeypatch.setattr("telemetry.live.feed_publisher._MOST_QUEUED", 5)
    await site.start()
    follower = site.follower()
    await check_followers(site, follower)
    site.feed.reachable = False
    for at_ms in range(100):
        await site.commit("p", feedback("abc"[at_ms % 3], at_ms))
        assert len(site.live._publisher._queue) <= 5
    assert site.live._publisher.broken.is_set() or not site.live._publisher.begun.is_set()
    site.feed.reachable = True
    await check_followers(site, follower)


async def test_the_feed_is_cut_to_its_size(site: LiveSite, await_until: AwaitUntil) -> None:
    """A follower that is too far behind reads the snapshot, which is saved in time."""
    site.settings = replace(BY_HAND, feed_bytes=5000)
    await site.start()
    slow = site.follower()
    await site.catch_up(slow)
    for at_ms in range(200):
        changed = site.feed.changed
        await site.commit("p", feedback("abc"[at_ms % 3], at_ms))
        await changed.wait()
    assert sum(len(data) + 64 for data in (site.feed.entries or {}).values()) <= 6000
    await await_until(lambda: site.live.counters.snapshots > 1)
    await check_followers(site, slow)
    assert site.live.counters.generations == 1


async def test_nothing_is_published_without_the_namespace(
    site: LiveSite, await_until: AwaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another archive's feed is left alone."""
    # A publisher that would try again does so at once.
    monkeypatch.setattr("telemetry.live.feed_publisher._FIRST_BACKOFF_S", 0.0)
    await site.start()
    await check_followers(site)
    site.live.set_connected(connected=False)
    await await_until(lambda: not site.live.counters.feed_connected)
    last = site.feed.last
    for at_ms in range(10):
        await site.commit("p", feedback("a", at_ms))
        await site.live._save()
    assert site.feed.last == last
    site.live.set_connected(connected=True)
    await check_followers(site)
