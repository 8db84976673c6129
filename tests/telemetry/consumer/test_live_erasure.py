"""Erased users leave the live state and the feed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.notes import EraseFailed
from tests.support.live.live_site import USERS, LiveSite, check_followers, erasure, feedback, item_change, state_of

AwaitUntil = Callable[..., Awaitable[None]]


async def test_an_erased_user_leaves_state_and_feed(site: LiveSite) -> None:
    """At once for followers, and then from every file and entry; later events begin anew."""
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1), feedback("b", 1), feedback("a", 30))
    await site.live._save()
    await site.commit("q", feedback("a", 2), feedback("a", 31), item_change("i", 1))
    await site.catch_up(follower)
    await site.commit("p", erasure("a", 20))
    await site.catch_up(follower)
    left = {"a": [("p", 3), ("q", 2)], "b": [("p", 2)]}
    assert state_of(follower, USERS) == left
    # A follower that takes the snapshot of before the round does not see them again.
    await site.live._save()
    newer = site.follower()
    await site.catch_up(newer)
    assert state_of(newer, USERS) == left
    generation = site.live.counters.generation
    await site.erase_users()
    assert site.live.counters.generation > generation
    await check_followers(site, follower, newer)
    assert state_of(follower, USERS) == left
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    assert manifest.erased == {}
    assert not any(b'"a"' in data for data in (site.feed.entries or {}).values())
    stored = StateSnapshot.open(site.directory)
    assert sum(layer.n_events for layer in stored._layers) == 3


async def test_erasing_unknown_users_costs_no_generation(site: LiveSite) -> None:
    """Whoever may erase can ask for any id."""
    await site.start()
    await site.commit("p", feedback("a", 1))
    await site.catch_up(site.follower())
    snapshots = site.live.counters.snapshots
    await site.commit("p", erasure("nobody", 20))
    await site.erase_users()
    assert (site.live.counters.generations, site.live.counters.snapshots) == (1, snapshots)
    assert not any(b"nobody" in data for data in (site.feed.entries or {}).values())


async def test_an_erasure_waits_for_redis(
    site: LiveSite, await_until: AwaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold events of the user until a new generation has begun."""
    monkeypatch.setattr("telemetry.consumer.live_feed._ERASE_PATIENCE_S", 0.05)
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1), feedback("b", 1))
    await site.catch_up(follower)
    site.feed.reachable = False
    await site.commit("p", erasure("a", 20))
    erasing = asyncio.create_task(site.erase_users())
    await await_until(lambda: any(isinstance(note, EraseFailed) for note in site.notes))
    assert not erasing.done()
    site.feed.reachable = True
    await erasing
    await check_followers(site, follower)


async def test_an_open_erasure_outlives_its_consumer(site: LiveSite) -> None:
    """The next one leaves the user out although the archive still has the lines."""
    await site.start()
    await site.commit("p", feedback("a", 1), feedback("b", 1))
    await site.stop()
    await site.start()
    await site.commit("p", erasure("a", 20), published=False)
    await site.kill()
    await site.start()
    follower = site.follower()
    await site.catch_up(follower)
    assert state_of(follower, USERS) == {"b": [("p", 2)]}
    await site.erase_users()
    await check_followers(site, follower)
