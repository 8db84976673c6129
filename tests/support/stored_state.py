"""A home with models, an archive and a state snapshot, as a consumer leaves them."""

import asyncio
from pathlib import Path

from tests.support.live_site import LiveSite, feedback, item_change


def with_state(home: Path, tmp_path: Path, *, after_snapshot: bool = False) -> Path:
    """Return a home with the same models, and an archive with what user 1 did and an item that was written."""
    changed = tmp_path / "var"
    changed.mkdir()
    (changed / "models").symlink_to(home / "models")

    async def write() -> None:
        site = LiveSite(changed)
        await site.start()
        await site.commit("a", feedback("1", 1, item_id="7"), feedback("visitor", 2, item_id="7"))
        await site.commit("a", item_change("3", 3, hidden=True), item_change("fresh", 4, title="Brand new"))
        await site.stop()
        if after_snapshot:
            await site.start()
            await site.commit("a", feedback("1", 5, item_id="9"), published=False)
            await site.kill()

    asyncio.run(write())
    return changed
