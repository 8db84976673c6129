import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from telemetry.archive.archive import Archive
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import CommitContent, ErasureRequest
from telemetry.erasure.erasure import read_receipts, user_digest
from telemetry.erasure.erasure_requests import expire_requests, finish_requests, late_event_filter
from telemetry.errors import ArchiveError
from telemetry.ids import rfc3339_ms
from tests.support.archives.erasures import REQUESTED, USER


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path)
    await archive.acquire(1.0)
    yield archive
    await archive.close()


async def test_empty_receipts_expire_after_the_window_and_beyond_a_number(archive: Archive) -> None:
    """Receipts that erased something stay, and so do open requests."""

    async def erased(name: str, models: int | None) -> None:
        await archive.commit(CommitContent(erasures=[ErasureRequest(name, name, name, REQUESTED)]))
        if models is not None:
            await archive.write_catalogue(finish_requests, {name: models}, rfc3339_ms(time.time()))

    await erased("open", None)
    await erased("known", 1)
    for name in ("empty-1", "empty-2"):
        await erased(name, 0)
    assert await archive.write_catalogue(expire_requests, archive.days_ago(7)) == 0
    assert await archive.write_catalogue(expire_requests, "2000-01-01T00:00:00.000Z", max_empty=1) == 1
    assert len(read_receipts(archive.root)) == 3
    assert await archive.write_catalogue(expire_requests, "2999-01-01T00:00:00.000Z") == 1
    assert [one.erase_id for one in read_receipts(archive.root)] == ["known", "open"]


def test_receipts_and_digests_need_an_archive(tmp_path: Path) -> None:
    """Without an archive there are no receipts; a digest cannot be computed without the archive's salt."""
    assert read_receipts(tmp_path) == []
    with pytest.raises(ArchiveError, match="no catalogue yet"):
        user_digest(tmp_path, USER)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Catalogue(tmp_path / folder).close()
    assert (
        user_digest(tmp_path / "one", USER)
        == user_digest(tmp_path / "one", USER)
        != user_digest(tmp_path / "two", USER)
    )


async def test_old_erasures_are_not_looked_up(archive: Archive) -> None:
    """An erasure older than the window affects no event; an open one always does."""

    async def filters(days: int, *user_ids: str) -> bool:
        return bool(await archive.read_catalogue(late_event_filter, user_ids, archive.days_ago(days)))

    assert not await filters(7, USER)
    request = ErasureRequest("erase-000001", USER, user_digest(archive.root, USER), REQUESTED)
    await archive.commit(CommitContent(erasures=[request]))
    assert await filters(7, "43", USER)
    assert not await filters(7, "43")
    await archive.write_catalogue(finish_requests, {"erase-000001": 0}, rfc3339_ms(time.time()))
    assert await filters(7, USER)
    assert not await filters(-1, USER)
