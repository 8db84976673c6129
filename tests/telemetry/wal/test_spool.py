import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from telemetry.batch import Position
from telemetry.errors import SpoolError
from telemetry.settings import ProducerSettings
from telemetry.wal.drops import DROP_KINDS, DropCount
from tests.support.spools.spool_log import Log

AwaitUntil = Callable[..., Awaitable[None]]


async def test_appended_events_are_committed_after_the_interval(tmp_path: Path, await_until: AwaitUntil) -> None:
    """Without a waiter, and only then may they be shipped."""
    log = Log(tmp_path)
    spool = log.open(ProducerSettings(ring_bytes=64 * 1024, commit_interval_s=0.001))
    durable_at: list[Position] = []
    spool.on_durable(lambda: durable_at.append(spool.durable))
    run = asyncio.create_task(spool.run())
    log.append(3)
    assert (spool.last_appended, spool.durable, await log.held()) == (Position(1, 3), Position(0, 0), [])
    await await_until(lambda: spool.durable == Position(1, 3))
    log.append(1)
    await await_until(lambda: durable_at == [Position(1, 3), Position(1, 4)])
    assert await log.held() == log.expected(1, 1, 4)
    run.cancel()
    await asyncio.wait([run])
    spool.close(clean=True)


async def test_many_bytes_are_committed_before_the_interval_ends(tmp_path: Path, await_until: AwaitUntil) -> None:
    """A quarter of a megabyte does not wait for the timer."""
    log = Log(tmp_path)
    spool = log.open(ProducerSettings(commit_interval_s=3600.0))
    run = asyncio.create_task(spool.run())
    log.append(1)
    assert await spool.when_durable()
    log.append(300, size_bytes=1000)
    await await_until(lambda: spool.durable.seq >= 250)
    run.cancel()
    await asyncio.wait([run])
    spool.close(clean=True)


async def test_an_answer_waits_for_the_disk(log: Log, await_until: AwaitUntil) -> None:
    """No waiter is resolved before fdatasync returned; later events wait for the next one."""
    log.disk.gate.clear()
    run = asyncio.create_task(log.spool.run())
    log.append(2)
    first = log.spool.when_durable()
    await await_until(lambda: log.disk.syncs == 1)
    log.append(1)
    second = log.spool.when_durable()
    assert not first.done()
    assert log.spool.durable == Position(0, 0)
    log.disk.gate.set()
    assert await first is True
    assert await second is True
    assert log.spool.durable == Position(1, 3)
    run.cancel()
    await asyncio.wait([run])


async def test_a_cancelled_run_does_not_leave_a_commit_half_done(log: Log, await_until: AwaitUntil) -> None:
    """The cancellation arrives once the disk has answered."""
    log.disk.gate.clear()
    run = asyncio.create_task(log.spool.run())
    log.append(2)
    done = log.spool.when_durable()
    await await_until(lambda: log.disk.syncs == 1)
    run.cancel()
    await asyncio.sleep(0)
    assert not run.done()
    log.disk.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await done is True


@pytest.mark.parametrize("refusal", ["create", "write", "sync"])
async def test_refused_events_are_committed_later_under_the_same_numbers(log: Log, refusal: str) -> None:
    """Waiters are refused at once; nothing is lost or renumbered, and the spool reports the refusal for a moment."""
    log.append(2)
    await log.spool.commit()
    if refusal == "create":
        await log.spool.close_segment()
    log.disk.refused = {refusal}
    log.append(2)
    done = log.spool.when_durable()
    await log.spool.commit()
    assert await done is False
    assert (log.spool.schedule.is_holding_back, log.spool.durable, log.spool.held) == (True, Position(1, 2), 4)
    log.append(1)
    await log.spool.commit()
    log.disk.refused.clear()
    await log.spool.commit()
    assert (log.spool.schedule.is_holding_back, log.spool.durable) == (False, Position(1, 5))
    assert await log.held() == log.expected(1, 1, 5)


async def test_a_recovered_disk_is_noticed(log: Log, await_until: AwaitUntil) -> None:
    """Pending events are committed again without a caller."""
    log.disk.refused = {"create"}
    run = asyncio.create_task(log.spool.run())
    log.append(1)
    assert await log.spool.when_durable() is False
    log.disk.refused.clear()
    log.append(1)
    assert await log.spool.when_durable() is True
    assert log.spool.durable == Position(1, 2)
    run.cancel()
    await asyncio.wait([run])


async def test_the_budget_keeps_a_share_for_feedback(tmp_path: Path) -> None:
    """Served events stop at their share, everything at the budget, and a ring that is full is a limit of its own."""
    log = Log(tmp_path)
    spool = log.open(ProducerSettings(spool_bytes=200_000, ring_bytes=10**6))
    for reserve, limit_bytes in ((False, 160_000), (True, 200_000)):
        while spool.has_room(1000, reserve=reserve):
            log.append(1, size_bytes=600)
            await spool.commit()
        assert limit_bytes - 1100 < spool.held_bytes <= limit_bytes
    assert not spool.has_room(400, lines=10, reserve=True)
    spool.close(clean=False)
    spool = Log(tmp_path / "other").open(ProducerSettings(spool_bytes=10**9, ring_bytes=64 * 1024))
    assert spool.has_room(24_000, reserve=False)
    assert not spool.has_room(28_000, reserve=False)
    spool.close(clean=True)


async def test_appending_without_room_raises(log: Log) -> None:
    """The error names the ring, and nothing is numbered."""
    with pytest.raises(SpoolError, match="has no room for the event"):
        log.append(1, size_bytes=200_000)
    assert log.spool.last_appended == Position(1, 0)


async def test_only_the_archive_releases(tmp_path: Path) -> None:
    """By whole segments; the current one goes when it is old, or at once if the budget is small."""
    log = Log(tmp_path)
    spool = log.open(ProducerSettings(spool_bytes=200_000, ring_bytes=128 * 1024, segment_age_s=3600.0))
    log.append(4)
    await spool.commit()
    await spool.close_segment()
    log.append(4)
    await spool.commit()
    assert await spool.release(Position(1, 3)) == 0
    assert await spool.release(Position(1, 8)) == 4
    assert await spool.release(Position(1, 8)) == 0
    log.append(80, size_bytes=1000)
    await spool.commit()
    assert await spool.release(Position(1, 87)) == 4
    assert await spool.release(Position(1, 88)) == 80
    assert (spool.held, spool.held_bytes) == (0, 0)
    log.append(1)
    await spool.commit()
    await spool.close_segment()
    log.disk.refused = {"unlink"}
    assert await spool.release(Position(1, 89)) == 0
    log.disk.refused.clear()
    assert await spool.release(Position(1, 89)) == 1
    spool.close(clean=True)


async def test_events_no_longer_in_memory_are_read_from_the_file(tmp_path: Path) -> None:
    """The shipper gets the same from either."""
    log = Log(tmp_path)
    spool = log.open(recent_bytes=5_000)
    for _ in range(20):
        log.append(3)
        await spool.commit()
    reads = log.disk.reads
    assert await log.held() == log.expected(1, 1, 60)
    assert log.disk.reads > reads
    run = await spool.read(Position(1, 57), 10, 1)
    assert run is not None
    assert (run.first_seq, len(run.lines), run.last) == (58, 1, Position(1, 58))
    spool.close(clean=True)


async def test_a_missing_segment_is_a_spool_error(log: Log) -> None:
    """A file that cannot be read is an error for the shipper, which tries again."""
    log.append(3)
    await log.spool.commit()
    log.kill()
    log.open()
    next(log.directory.glob("*.wal")).unlink()
    with pytest.raises(SpoolError, match="cannot be read"):
        await log.spool.read(Position(0, 0), 1, 1)


async def test_drops_survive_the_process(log: Log) -> None:
    """Until they are recorded."""
    log.spool.drops.add(DROP_KINDS[2], 3, 1)
    log.spool.drops.add(DROP_KINDS[2], 1, 5)
    log.kill()
    assert log.open().drops.counts == {2: DropCount(4, 1)}
