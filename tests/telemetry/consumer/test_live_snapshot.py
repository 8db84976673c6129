"""The snapshot of live state that the consumer keeps: what it holds, and that it is saved whatever the disk does."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from telemetry.batch import Position
from telemetry.errors import StateError
from telemetry.live.event_layer import write_layer
from telemetry.live.state_check import count_wrong_users
from telemetry.live.state_manifest import FILE_NAME, Stamp, StateManifest
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.notes import FeedBegun, StateFailed
from tests.reference.live_state import live_state
from tests.support.live.live_site import (
    BY_HAND,
    NOW_MS,
    USERS,
    LiveSite,
    check_followers,
    feedback,
    item_change,
    restored_note,
)

AwaitUntil = Callable[..., Awaitable[None]]


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
        assert (restored_note(site).rebuilt is not None) == rebuilt, changes
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
    assert restored_note(site).rebuilt is None
    await check_followers(site, most=1000, since_ms=since_ms)


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
    await check_followers(site, follower)
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
    await check_followers(site, follower)
    with monkeypatch.context() as refusing:

        def refuse(*_arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        refusing.setattr("telemetry.live.state_store.write_layer", refuse)
        site.feed.flush_all()
        for at_ms in range(1, 40):
            await site.commit("p", feedback("abc"[at_ms % 3], at_ms), item_change("i", at_ms))
            assert len(site.live._unsaved) <= 5
        await await_until(lambda: any(isinstance(note, StateFailed) for note in site.notes))
        assert not site.live.counters.restored
    await await_until(lambda: site.live.counters.restored)
    await check_followers(site, follower)


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
    await check_followers(site)


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
    await check_followers(site)
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    assert {path.name for path in site.directory.iterdir()} == {
        FILE_NAME, "note.txt", *manifest.layers, str(manifest.items)
    }  # fmt: skip
    assert [note for note in site.notes if isinstance(note, FeedBegun)]
