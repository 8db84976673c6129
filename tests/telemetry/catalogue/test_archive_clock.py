import time
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.archive.archive import Archive
from telemetry.catalogue.archive_clock import ArchiveClock
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import CommitContent, Progress, SeenEvent

KEY = ("default", "event-0001")


def test_it_advances_by_the_monotonic_clock() -> None:
    """It continues from the stored time."""
    moments = [50.0]
    clock = ArchiveClock(1000, lambda: moments[0])
    assert clock.now_s() == 1000
    moments[0] += 61.5
    assert clock.now_s() == 1061


@pytest.mark.parametrize("days", [9, 4000, -9])
async def test_a_clock_that_jumps_expires_no_seen_event(tmp_path: Path, days: float) -> None:
    """Neither while the archive is held, nor by a consumer that starts meanwhile, nor when the clock is right again."""
    off_s = 0.0

    def wall_clock() -> float:
        return time.time() + off_s

    archive = Archive(tmp_path, wall_clock=wall_clock)
    await archive.acquire(1.0)
    await archive.commit(CommitContent({}, {("p", 1): Progress(1, archived=1)}, [SeenEvent(*KEY, b"1")]))
    off_s = days * 86_400
    assert (await archive.expire_seen(7, 100))[0] == 0
    await archive.close()
    again = Archive(tmp_path, wall_clock=wall_clock)
    await again.acquire(1.0)
    assert (await again.expire_seen(7, 100))[0] == 0
    await again.commit(
        CommitContent({}, {("p", 1): Progress(2, archived=1)}, [SeenEvent("default", "event-0002", b"2")])
    )
    await again.close()
    off_s = 0.0
    last = Archive(tmp_path, wall_clock=wall_clock)
    await last.acquire(1.0)
    assert (await last.expire_seen(7, 100))[0] == 0
    assert await last.seen_fingerprints([KEY, ("default", "event-0002")]) == {
        KEY: {b"1"},
        ("default", "event-0002"): {b"2"},
    }
    await last.close()


def test_the_catalogue_stores_it_by_the_minute_and_never_sets_it_back(tmp_path: Path) -> None:
    """Only for the holder of the lease; an older catalogue has the time of its newest seen event."""
    with closing(Catalogue(tmp_path)) as catalogue:
        assert catalogue.clock_s() is None
        lease = catalogue.lease.acquire(catalogue.lease.read(), "me", "here", locked=False)
        assert lease is not None
        catalogue.store_clock(lease.epoch - 1, 5000)
        assert catalogue.clock_s() is None
        for now_s, kept_s in ((1000, 1000), (1059, 1000), (1060, 1060), (900, 1060)):
            catalogue.store_clock(lease.epoch, now_s)
            assert catalogue.clock_s() == kept_s
        catalogue.database.sql.execute("INSERT INTO seen VALUES ('t', 'id', x'', 2000)")
        assert catalogue.clock_s() == 2000
