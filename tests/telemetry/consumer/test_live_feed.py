import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from telemetry.archive.compaction import compact
from telemetry.batch import Position
from telemetry.errors import StateError
from telemetry.live.event_layer import write_layer
from telemetry.live.state_check import count_wrong_users
from telemetry.live.state_manifest import FILE_NAME, Stamp, StateManifest
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.notes import FeedBegun, StateFailed, StateRestored
from tests.reference.live_state import item_changes, live_state
from tests.support import sample_events
from tests.support.live_follower import LiveFollower
from tests.support.live_site import BY_HAND, NOW_MS, LiveSite, erasure, feedback, item_change, state_of

AwaitUntil = Callable[..., Awaitable[None]]
USERS = ("a", "b", "c")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[LiveSite]:
    site = LiveSite(tmp_path)
    yield site
    await site.stop()


async def check(site: LiveSite, *followers: LiveFollower, most: int = 4, since_ms: int = 0) -> None:
    """Followers, old and new, have the state that the archive has by definition."""
    expected = live_state(site.root, most, since_ms)
    for follower in (*followers, site.follower()):
        await site.catch_up(follower)
        assert follower.state(USERS) == expected
        assert {change.item_id: change for change in follower.items.changes()} == {
            item: record.event for item, record in item_changes(site.root).items()
        }


def restored(site: LiveSite) -> StateRestored:
    """The last note on a restored state."""
    return [note for note in site.notes if isinstance(note, StateRestored)][-1]


async def test_followers_have_what_is_committed(site: LiveSite) -> None:
    """The last events of each user by time, whatever the order of arrival; marks move with every commit."""
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 5), feedback("b", 4), sample_events.served())
    await site.commit("q", *(feedback("a", at_ms) for at_ms in (9, 1, 7, 3)), item_change("i1", 1))
    await site.commit("p", feedback("c", 3, marks=["id_conflict"]), feedback("c", 2, type="impression"))
    await site.skip("q", 2)
    await check(site, follower)
    assert state_of(follower, USERS) == {"a": [("q", 4), ("p", 1), ("q", 3), ("q", 1)], "b": [("p", 2)]}
    assert follower.marks == {"p": Position(1, 5), "q": Position(1, 7)}
    await site.commit("q", item_change("i1", 9), item_change("i1", 5))
    await check(site, follower)


async def test_a_restart_continues_the_snapshot(site: LiveSite) -> None:
    """Nothing is read again that it includes, and nothing is missing that a killed consumer did not publish."""
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1), feedback("b", 2))
    await site.stop()
    await site.start()
    assert restored(site) == StateRestored(0, restored(site).duration_s, None)
    await site.commit("p", feedback("a", 3), item_change("i", 3))
    await site.commit("q", feedback("a", 4), published=False)
    await site.kill()
    await site.start()
    assert restored(site).events == 2
    await check(site, follower)
    await site.commit("q", feedback("c", 5))
    await check(site, follower)


async def test_a_snapshot_is_checked_against_the_archive(site: LiveSite) -> None:
    """Whatever of a user is missing, too much or different; a snapshot is compared as of its marks."""
    with pytest.raises(StateError, match="no state snapshot"):
        count_wrong_users(site.root, site.directory)
    await site.start()
    for at_ms in range(1, 7):
        await site.commit("p", feedback("a", at_ms), feedback("b", at_ms), feedback("c", at_ms, type="impression"))
    await site.live._save()
    await site.commit("p", feedback("a", 9))
    assert count_wrong_users(site.root, site.directory) == 0
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    for changes, wrong in (
        ({"layers": ()}, 2),
        ({"most_events": 3}, 0),
        ({"marks": {"p": Position(1, 1)}}, 2),
        ({"marks": {**manifest.marks, "p": Position(1, 19)}}, 1),
        ({"types": (*manifest.types, "impression")}, 1),
    ):
        replace(manifest, **changes).write(site.directory)
        assert count_wrong_users(site.root, site.directory) == wrong, changes


async def test_files_that_were_rewritten_meanwhile_are_read_once(site: LiveSite) -> None:
    """A compacted file holds old events and new ones; the marks tell them apart."""
    await site.start()
    yesterday = -86_400_000
    await site.commit("p", feedback("a", yesterday))
    await site.stop()
    await site.start()
    await site.commit("p", feedback("a", yesterday + 1), published=False)
    await site.kill()
    await site.start(wait=False)
    await site.archive.seal()
    assert [one.files for one in compact(site.root, "2026-11-21")] == [2]
    await site.kill()
    await site.start()
    assert (restored(site).events, restored(site).rebuilt) == (1, None)
    await check(site)
    # The compacted file is known from here on.
    await site.stop()
    await site.start()
    assert restored(site).events == 0
    await check(site)


@pytest.mark.parametrize("loss", ["nothing", "manifest", "damage", "layer", "everything", "foreign"])
async def test_a_lost_snapshot_is_made_again_from_the_archive(site: LiveSite, loss: str) -> None:
    """Whatever is missing or damaged, and the reason is reported."""
    await site.start()
    follower = site.follower()
    for at_ms in range(3):
        await site.commit("p", feedback("a", at_ms), item_change("i", at_ms))
        await site.live._save()
    await site.catch_up(follower)
    await site.kill()
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    if loss == "manifest":
        (site.directory / FILE_NAME).unlink()
    elif loss == "damage":
        path = site.directory / manifest.layers[0]
        path.write_bytes(path.read_bytes().replace(b"RCLSTATE", b"RCLSTATF"))
    elif loss == "layer":
        (site.directory / manifest.layers[0]).unlink()
    elif loss == "everything":
        for path in site.directory.iterdir():
            path.unlink()
    elif loss == "foreign":
        replace(manifest, archive="another").write(site.directory)
    await site.start()
    reasons = {"nothing": None, "foreign": "another archive", "manifest": "no state snapshot"}
    reason = reasons.get(loss, "")
    assert restored(site).events == (0 if reason is None else 3)
    assert restored(site).rebuilt is None if reason is None else reason in str(restored(site).rebuilt)
    await check(site, follower)


async def test_an_archive_from_a_backup_has_its_own_state(site: LiveSite) -> None:
    """The snapshot has events that the archive lacks, so it is made again."""
    await site.start()
    await site.commit("p", feedback("a", 1))
    await site.stop()
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    replace(manifest, marks={"p": Position(1, 2)}).write(site.directory)
    await site.start()
    assert "producer p that the archive lacks" in str(restored(site).rebuilt)
    await check(site)


async def test_settings_decide_how_much_is_kept(site: LiveSite) -> None:
    """Fewer events are cut; for more, or other types, the archive is read again; a horizon cuts by time."""
    day_ms = 86_400_000
    await site.start()
    for at_ms in (-9 * day_ms, -3 * day_ms, 1, 2, 3, 4, 5, 6):
        await site.commit("p", feedback("a", at_ms), feedback("a", at_ms, type="impression"))
    for changes, rebuilt in (
        ({"events_per_user": 2}, False),
        ({"events_per_user": 100}, True),
        ({"events_per_user": 100, "days": 5}, False),
        ({"events_per_user": 100, "days": 300}, True),
        ({"events_per_user": 100, "impressions": True}, True),
        ({"events_per_user": 100}, True),
    ):
        await site.stop()
        site.settings = replace(BY_HAND, **changes)  # type: ignore[arg-type]
        await site.start()
        assert (restored(site).rebuilt is not None) == rebuilt, changes
        since_ms = NOW_MS - NOW_MS % day_ms - site.settings.days * day_ms
        types = ("rating", "impression") if site.settings.impressions else ("rating",)
        follower = site.follower()
        await site.catch_up(follower)
        assert follower.snapshot.since_ms == since_ms
        expected = live_state(site.root, site.settings.events_per_user, since_ms, types)
        assert follower.state(USERS) == expected


async def test_a_state_that_is_too_large_forgets_the_oldest_events(site: LiveSite) -> None:
    """Of all users; the horizon says so, and what is kept is complete behind it."""
    site.settings = replace(BY_HAND, state_bytes=20_000, events_per_user=1000)
    await site.start()
    for hundred in range(20):
        await site.commit(
            "p", *(feedback(USERS[at_ms % 3], at_ms) for at_ms in range(100 * hundred, 100 * hundred + 100))
        )
        await site.live._save()
    follower = site.follower()
    await site.catch_up(follower)
    since_ms = follower.snapshot.since_ms
    assert NOW_MS < since_ms < NOW_MS + 1900
    assert follower.snapshot.size_bytes <= 20_000
    assert follower.state(USERS) == live_state(site.root, 1000, since_ms)
    await site.stop()
    await site.start()
    assert restored(site).rebuilt is None
    await check(site, most=1000, since_ms=since_ms)


@pytest.mark.parametrize("loss", ["flush", "trim", "hole", "foreign entry"])
async def test_what_redis_loses_begins_a_new_generation(site: LiveSite, await_until: AwaitUntil, loss: str) -> None:
    """Without any further event, and under traffic."""
    await site.start()
    followers = [site.follower() for _ in range(2)]
    for number in range(4):
        await site.commit("p", feedback("a", number), feedback("b", number))
        await check(site, followers[0])
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
        await check(site, *followers)


async def test_an_outage_of_redis_holds_up_nothing(site: LiveSite, await_until: AwaitUntil) -> None:
    """Commits go on and snapshots are saved; afterwards every follower has everything."""
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1))
    await check(site, follower)
    for full in (False, True):
        site.feed.reachable, site.feed.full = full, full
        for at_ms in range(10, 20):
            await site.commit("p", feedback("a", at_ms + 10 * full), feedback("b", at_ms))
            if at_ms == 15:
                await site.live._save()
        site.feed.reachable, site.feed.full = True, False
        await check(site, follower)


async def test_a_long_outage_fills_no_memory(site: LiveSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many events a snapshot replaces the queue."""
    monkeypatch.setattr("telemetry.live.feed_publisher._MOST_QUEUED", 5)
    await site.start()
    follower = site.follower()
    await check(site, follower)
    site.feed.reachable = False
    for at_ms in range(100):
        await site.commit("p", feedback("abc"[at_ms % 3], at_ms))
        assert len(site.live._publisher._queue) <= 5
    assert site.live._publisher.broken.is_set() or not site.live._publisher.begun.is_set()
    site.feed.reachable = True
    await check(site, follower)


async def test_the_feed_is_cut_to_its_size(site: LiveSite, await_until: AwaitUntil) -> None:
    """A follower that is too far behind reads the snapshot, which is saved in time."""
    site.settings = replace(BY_HAND, feed_bytes=5000)
    await site.start()
    slow = site.follower()
    await site.catch_up(slow)
    for at_ms in range(200):
        await site.commit("p", feedback("abc"[at_ms % 3], at_ms))
        await asyncio.sleep(0.001)
    assert sum(len(data) + 64 for data in (site.feed.entries or {}).values()) <= 6000
    await await_until(lambda: site.live.counters.snapshots > 1)
    await check(site, slow)
    assert site.live.counters.generations == 1


async def test_nothing_is_published_without_the_namespace(site: LiveSite) -> None:
    """Another archive's feed is left alone."""
    await site.start()
    await check(site)
    site.live.set_connected(connected=False)
    await asyncio.sleep(2 * 0.01)
    last = site.feed.last
    await site.commit("p", feedback("a", 1))
    await asyncio.sleep(3 * 0.01)
    assert site.feed.last == last
    site.live.set_connected(connected=True)
    await check(site)


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
    await check(site, follower, newer)
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


async def test_an_erasure_waits_for_redis(site: LiveSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold events of the user until a new generation has begun."""
    monkeypatch.setattr("telemetry.consumer.live_feed._ERASE_PATIENCE_S", 0.05)
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1), feedback("b", 1))
    await site.catch_up(follower)
    site.feed.reachable = False
    await site.commit("p", erasure("a", 20))
    erasing = asyncio.create_task(site.erase_users())
    await asyncio.sleep(0.3)
    assert not erasing.done()
    site.feed.reachable = True
    await erasing
    await check(site, follower)


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
    await check(site, follower)


@pytest.mark.parametrize("step", ["layer", "manifest"])
async def test_a_disk_that_refuses_is_tried_again(
    site: LiveSite, monkeypatch: pytest.MonkeyPatch, await_until: AwaitUntil, step: str
) -> None:
    """Nothing is lost meanwhile, archiving goes on, and the failure is reported."""
    monkeypatch.setattr("telemetry.consumer.live_feed._FIRST_PAUSE_S", 0.01)
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1))
    write = write_layer if step == "layer" else StateManifest.write
    failures = iter([OSError(28, "No space left on device")] * 2)

    def refuse(*arguments: Any) -> Stamp | None:
        for failure in failures:
            raise failure
        return write(*arguments)

    if step == "layer":
        monkeypatch.setattr("telemetry.live.state_store.write_layer", refuse)
    else:
        monkeypatch.setattr(StateManifest, "write", refuse)
    site.feed.flush_all()
    await site.commit("p", feedback("a", 2))
    await await_until(lambda: len([note for note in site.notes if isinstance(note, StateFailed)]) == 2)
    await check(site, follower)
    assert site.live.counters.snapshot_failures == 2


async def test_a_disk_that_refuses_for_long_fills_no_memory(
    site: LiveSite, monkeypatch: pytest.MonkeyPatch, await_until: AwaitUntil
) -> None:
    """Beyond so many events they are dropped, and read from the archive when there is room again."""
    monkeypatch.setattr("telemetry.consumer.live_feed._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("telemetry.consumer.live_feed._LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr("telemetry.consumer.unsaved_state._MOST_EVENTS", 5)
    monkeypatch.setattr("telemetry.consumer.live_feed._CHECK_S", 0.01)
    await site.start()
    follower = site.follower()
    await check(site, follower)
    with monkeypatch.context() as refusing:

        def refuse(*_arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        refusing.setattr("telemetry.live.state_store.write_layer", refuse)
        site.feed.flush_all()
        for at_ms in range(1, 40):
            await site.commit("p", feedback("abc"[at_ms % 3], at_ms), item_change("i", at_ms))
            assert len(site.live._unsaved) <= 5
            await asyncio.sleep(0.001)
        assert not site.live.counters.restored
    await await_until(lambda: site.live.counters.restored)
    await check(site, follower)


async def test_a_snapshot_that_another_consumer_replaced_is_saved_again(
    site: LiveSite, await_until: AwaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that lost its lease and woke up in the middle of a save."""
    monkeypatch.setattr("telemetry.consumer.live_feed._CHECK_S", 0.01)
    await site.start()
    await site.commit("p", feedback("a", 1))
    await site.live._save()
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    replace(manifest, position=Position(1, 1), layers=()).write(site.directory)

    def is_saved(user: str) -> bool:
        with suppress(StateError):
            return bool(StateSnapshot.open(site.directory).events(user))
        return False

    await await_until(lambda: is_saved("a"))
    (site.directory / manifest.layers[0]).unlink()
    await site.commit("p", feedback("b", 2))
    await await_until(lambda: is_saved("b"))
    await check(site)


async def test_the_files_of_killed_consumers_are_removed(site: LiveSite) -> None:
    """And those that a snapshot replaced; nothing else of the directory is touched."""
    await site.start()
    for at_ms in range(5):
        await site.commit("p", feedback("a", at_ms), item_change("i", at_ms))
        await site.live._save()
    await site.stop()
    (site.directory / "left.events").write_bytes(b"x")
    (site.directory / ".snapshot.json.staged").write_bytes(b"x")
    (site.directory / "note.txt").write_bytes(b"x")
    await site.start()
    await check(site)
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    assert {path.name for path in site.directory.iterdir()} == {
        FILE_NAME, "note.txt", *manifest.layers, str(manifest.items)
    }  # fmt: skip
    assert [note for note in site.notes if isinstance(note, FeedBegun)]
