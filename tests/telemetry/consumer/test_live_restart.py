"""A consumer that starts continues the snapshot of live state, or makes it again from the archive."""

from dataclasses import replace

import pytest

from telemetry.archive.compaction import compact
from telemetry.batch import Position
from telemetry.live.state_manifest import FILE_NAME, StateManifest
from telemetry.notes import StateRestored
from tests.support.live.live_site import LiveSite, check_followers, feedback, item_change, restored_note


async def test_a_restart_continues_the_snapshot(site: LiveSite) -> None:
    """Nothing is read again that it includes, and nothing is missing that a killed consumer did not publish."""
    await site.start()
    follower = site.follower()
    await site.commit("p", feedback("a", 1), feedback("b", 2))
    await site.stop()
    await site.start()
    assert restored_note(site) == StateRestored(0, restored_note(site).duration_s, None)
    await site.commit("p", feedback("a", 3), item_change("i", 3))
    await site.commit("q", feedback("a", 4), published=False)
    await site.kill()
    await site.start()
    assert restored_note(site).events == 2
    await check_followers(site, follower)
    await site.commit("q", feedback("c", 5))
    await check_followers(site, follower)


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
    assert (restored_note(site).events, restored_note(site).rebuilt) == (1, None)
    await check_followers(site)
    # The compacted file is known from here on.
    await site.stop()
    await site.start()
    assert restored_note(site).events == 0
    await check_followers(site)


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
    assert restored_note(site).events == (0 if reason is None else 3)
    assert restored_note(site).rebuilt is None if reason is None else reason in str(restored_note(site).rebuilt)
    await check_followers(site, follower)


async def test_an_archive_from_a_backup_has_its_own_state(site: LiveSite) -> None:
    """The snapshot has events that the archive lacks, so it is made again."""
    await site.start()
    await site.commit("p", feedback("a", 1))
    await site.stop()
    manifest = StateManifest.read(site.directory)
    assert manifest is not None
    replace(manifest, marks={"p": Position(1, 2)}).write(site.directory)
    await site.start()
    assert "producer p that the archive lacks" in str(restored_note(site).rebuilt)
    await check_followers(site)
