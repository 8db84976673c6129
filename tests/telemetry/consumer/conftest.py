"""The live state that the tests of this folder share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.live.live_site import LiveSite


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[LiveSite]:
    """An archive with live state, not started yet."""
    site = LiveSite(tmp_path)
    yield site
    await site.stop()
