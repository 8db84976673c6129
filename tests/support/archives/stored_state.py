"""A home with models, an archive and a state snapshot, as a consumer leaves them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.support.live.live_site import LiveSite, feedback, item_change


def with_state(
    home: Path, tmp_path: Path, *, after_snapshot: bool = False, users: Mapping[str, str] | None = None
) -> Path:
    """Return a home with the same models, and an archive with what user 1 did and an item that was written.

    Args:
        home: Has the models.
        tmp_path: Where the new home is made.
        after_snapshot: Whether user 1 did something that the state snapshot does not have.
        users: By name: the id of user 1 and of the visitor in telemetry.
    """
    ids = users or {"1": "1", "visitor": "visitor"}
    changed = tmp_path / "var"
    changed.mkdir()
    (changed / "models").symlink_to(home / "models")

    async def write() -> None:
        site = LiveSite(changed)
        await site.start()
        await site.commit("a", feedback(ids["1"], 1, item_id="7"), feedback(ids["visitor"], 2, item_id="7"))
        await site.commit("a", item_change("3", 3, hidden=True), item_change("fresh", 4, title="Brand new"))
        await site.stop()
        if after_snapshot:
            await site.start()
            await site.commit("a", feedback(ids["1"], 5, item_id="9"), published=False)
            await site.kill()

    asyncio.run(write())
    return changed
