import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from telemetry.batch import Position
from telemetry.errors import SpoolError
from telemetry.events import decode, encode
from telemetry.settings import ProducerSettings
from telemetry.wal.disk import File, RealDisk
from telemetry.wal.drops import DROP_KINDS, DropCount
from telemetry.wal.frame import encode_frame
from telemetry.wal.recent_frames import RECENT_BYTES
from telemetry.wal.segment import SegmentHeader, encode_header, file_name
from telemetry.wal.slot import Slot
from telemetry.wal.slot_identity import IDENTITY_FILE
from telemetry.wal.spool import Spool
from tests.support import sample_events
from tests.support.killed_spool import kill

AwaitUntil = Callable[..., Awaitable[None]]
SETTINGS = ProducerSettings(spool_bytes=1024 * 1024, ring_bytes=128 * 1024, commit_interval_s=3600.0)


class FaultyDisk(RealDisk):
    """The real one, with the operations in `refused` failing and `fdatasync` as slow as `gate` says."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.syncs = 0
        self.gate = threading.Event()
        self.gate.set()

    def check(self, what: str) -> None:
        if what in self.refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def create(self, path: Path, size_bytes: int) -> File:
        self.check("create")
        return _FaultyFile(super().create(path, size_bytes), self)

    def replace(self, path: Path, data: bytes) -> None:
        self.check("replace")
        super().replace(path, data)

    def unlink(self, path: Path) -> None:
        self.check("unlink")
        super().unlink(path)


class _FaultyFile:
    def __init__(self, file: File, disk: FaultyDisk) -> None:
        self._file = file
        self._disk = disk
        self.truncate = file.truncate
        self.close = file.close

    def write_at(self, data: bytes, offset: int) -> None:
        self._disk.check("write")
        self._file.write_at(data, offset)

    def sync(self) -> None:
        self._disk.syncs += 1
        self._disk.gate.wait(30)
        self._disk.check("sync")
        self._file.sync()


class Log:
    """A spool in a directory, and the events that were put into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = FaultyDisk()
        self.spools: list[Spool] = []
        self.number = 0

    @property
    def spool(self) -> Spool:
        return self.spools[-1]

    @property
    def directory(self) -> Path:
        return self.root / "0"

    def open(self, settings: ProducerSettings = SETTINGS, recent_bytes: int = RECENT_BYTES) -> Spool:
        slot = Slot.open(self.root, 0, self.disk)
        try:
            self.spools.append(Spool(slot, settings, self.disk, recent_bytes=recent_bytes))
        except BaseException:
            slot.close()
            raise
        return self.spool

    def kill(self) -> None:
        """Let go of the slot as a process that dies does."""
        kill(self.spool)

    def append(self, count: int, size_bytes: int = 5) -> None:
        spool = self.spool
        for _ in range(count):
            self.number += 1
            event = sample_events.served(event_id=f"ev-{self.number:08d}", user_id="u" * size_bytes)
            spool.append(encode(event, spool.producer_id, spool.epoch, spool.next_seq))

    async def held(self) -> list[tuple[int, int, str]]:
        """Return epoch, number and event id of everything durable."""
        found = []
        place = Position(0, 0)
        while (run := await self.spool.read(place, 7, 10**6)) is not None:
            for seq, line in enumerate(run.lines, run.first_seq):
                record = decode(line)
                assert record[1:] == (self.spool.producer_id, run.epoch, seq)
                found.append((run.epoch, seq, record.event.event_id))
            place = run.last
        return found

    def expected(self, epoch: int, first: int, last: int) -> list[tuple[int, int, str]]:
        """Return what `held` gives for events that got numbers from 1 on in one epoch."""
        return [(epoch, number - first + 1, f"ev-{number:08d}") for number in range(first, last + 1)]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = Log(tmp_path)
    log.open()
    yield log
    log.disk.gate.set()
    log.disk.refused.clear()
    log.spool.close(clean=True)


async def test_what_was_appended_is_committed_when_its_time_has_come(tmp_path: Path, await_until: AwaitUntil) -> None:
    """Without anybody asking, and only then may it be shipped."""
    log = Log(tmp_path)
    spool = log.open(ProducerSettings(ring_bytes=64 * 1024, commit_interval_s=0.001))
    told: list[Position] = []
    spool.on_durable(lambda: told.append(spool.durable))
    run = asyncio.create_task(spool.run())
    log.append(3)
    assert (spool.generated, spool.durable, await log.held()) == (Position(1, 3), Position(0, 0), [])
    await await_until(lambda: spool.durable == Position(1, 3))
    log.append(1)
    await await_until(lambda: told == [Position(1, 3), Position(1, 4)])
    assert await log.held() == log.expected(1, 1, 4)
    run.cancel()
    await asyncio.wait([run])
    spool.close(clean=True)


async def test_much_is_committed_before_its_time(tmp_path: Path, await_until: AwaitUntil) -> None:
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
    """Nobody is told before fdatasync returned; what comes meanwhile waits for the next one."""
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
async def test_after_a_refusal_the_same_is_committed_under_the_same_numbers(log: Log, refusal: str) -> None:
    """Who waited is refused at once; nothing is lost or numbered anew, and the refusal is remembered for a moment."""
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


async def test_a_disk_that_is_well_again_is_found_out(log: Log, await_until: AwaitUntil) -> None:
    """What is pending is tried again by itself."""
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


async def test_what_a_killed_process_left_keeps_its_numbers(log: Log) -> None:
    """The durable part and the rest are one run; the new process begins the next epoch."""
    log.append(3)
    await log.spool.commit()
    log.append(2)
    log.kill()
    again = log.open()
    assert (again.recovered, again.was_clean, again.generated) == (5, False, Position(2, 0))
    assert await log.held() == log.expected(1, 1, 5)
    assert again.identity.ended == {(again.producer_id, 1): 5}
    log.append(1)
    await again.commit()
    assert await log.held() == [*log.expected(1, 1, 5), *log.expected(2, 6, 6)]
    assert [again.count_after(Position(*place)) for place in [(0, 0), (1, 2), (1, 5), (2, 0), (2, 1)]] == [
        6,
        4,
        1,
        1,
        0,
    ]


async def test_a_clean_end_is_remembered(log: Log) -> None:
    """The next process learns that everything had got out, and how far the epoch got."""
    log.append(2)
    await log.spool.commit()
    log.spool.close(clean=True)
    again = log.open()
    assert (again.was_clean, again.epoch) == (True, 2)
    assert again.identity.ended == {(again.producer_id, 1): 2}


async def test_a_start_on_a_full_disk_loses_nothing(log: Log) -> None:
    """What was only in the ring is carried there into the new epoch, for nobody knows its numbers yet."""
    log.append(2)
    await log.spool.commit()
    log.append(2)
    log.kill()
    log.disk.refused = {"create"}
    again = log.open()
    assert (again.recovered, again.generated, again.durable) == (4, Position(2, 2), Position(1, 2))
    log.kill()
    again = log.open()
    assert (again.recovered, again.generated) == (4, Position(3, 2))
    log.disk.refused.clear()
    await again.commit()
    assert await log.held() == [*log.expected(1, 1, 2), *log.expected(3, 3, 4)]


async def test_a_disk_that_refuses_everything_is_one_sentence(log: Log) -> None:
    """Without an epoch of its own nothing can be numbered."""
    log.kill()
    log.disk.refused = {"replace"}
    with pytest.raises(SpoolError, match="Slot 0 cannot be used: No space left"):
        log.open()
    log.disk.refused.clear()
    log.open()


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_identity_is_read_in_the_log(log: Log, committed: bool) -> None:
    """The events say whose they are, and the epoch goes on above theirs."""
    producer = log.spool.producer_id
    log.append(3)
    if committed:
        await log.spool.commit()
    log.kill()
    (log.directory / IDENTITY_FILE).write_bytes(b"{")
    again = log.open()
    assert (again.producer_id, again.epoch, again.was_clean) == (producer, 2, False)
    assert await log.held() == log.expected(1, 1, 3)


async def test_without_a_past_a_new_producer_is_born(log: Log) -> None:
    """Its epoch is above the one before all the same, which the ring knows."""
    producer = log.spool.producer_id
    log.kill()
    (log.directory / IDENTITY_FILE).unlink()
    again = log.open()
    assert again.producer_id != producer
    assert (again.epoch, again.was_clean) == (2, True)


async def test_somebody_elses_segment_is_neither_shipped_nor_removed(log: Log) -> None:
    """It was put there by hand, and by hand it has to go."""
    log.append(1)
    await log.spool.commit()
    log.kill()
    header = SegmentHeader("somebody", 7, 1)
    path = log.directory / file_name(header)
    path.write_bytes(encode_header(header) + encode_frame(1, encode(sample_events.served(), "somebody", 7, 1)))
    again = log.open()
    assert await log.held() == log.expected(1, 1, 1)
    assert (again.epoch, again.held) == (2, 1)
    assert path.exists()


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


async def test_more_than_fits_is_a_mistake_of_the_caller(log: Log) -> None:
    """It is said, and nothing is numbered."""
    with pytest.raises(SpoolError, match="has no room for the event"):
        log.append(1, size_bytes=200_000)
    assert log.spool.generated == Position(1, 0)


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


async def test_what_is_not_in_memory_any_more_is_read_from_the_file(tmp_path: Path) -> None:
    """The shipper gets the same from either."""
    log = Log(tmp_path)
    spool = log.open(recent_bytes=5_000)
    for _ in range(20):
        log.append(3)
        await spool.commit()
    assert 1 < spool._frames.first_seq <= 55
    assert await log.held() == log.expected(1, 1, 60)
    run = await spool.read(Position(1, 57), 10, 1)
    assert run is not None
    assert (run.first_seq, len(run.lines), run.last) == (58, 1, Position(1, 58))
    spool.close(clean=True)


async def test_a_segment_that_is_gone_is_said_so(log: Log) -> None:
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


async def move(log: Log, producer: str, epoch: int, after: Position) -> int:
    return await log.spool.renumber_after(after, producer=producer, epoch=epoch)


async def test_a_new_epoch_numbers_anew_what_the_stream_does_not_have(log: Log) -> None:
    """What it has stays under its old numbers, held; pending events move too, and everything is durable."""
    producer = log.spool.producer_id
    log.append(3)
    await log.spool.commit()
    log.kill()
    log.open()
    log.append(4)
    await log.spool.commit()
    log.append(2)
    assert await move(log, producer, 9, Position(2, 1)) == 0
    expected = [*log.expected(1, 1, 3), *log.expected(2, 4, 4), *log.expected(9, 5, 9)]
    assert await log.held() == expected
    assert (log.spool.generated, log.spool.held) == (Position(9, 5), 9)
    assert log.spool.identity.ended == {(producer, 1): 3, (producer, 2): 1}
    log.append(1)
    await log.spool.commit()
    log.kill()
    again = log.open()
    assert (again.producer_id, again.epoch) == (producer, 10)
    assert await log.held() == [*expected, (9, 6, "ev-00000010")]


async def test_a_new_producer_takes_everything_that_no_stream_has(log: Log) -> None:
    """Also of earlier epochs; what the old stream has is left to it, and nothing of it stays here."""
    old = log.spool.producer_id
    log.append(3)
    await log.spool.commit()
    log.kill()
    log.open()
    log.append(2)
    assert await move(log, "another", 3, Position(1, 1)) == 1
    assert await log.held() == log.expected(3, 2, 5)
    assert (log.spool.producer_id, log.spool.held) == ("another", 4)
    assert log.spool.identity.ended == {(old, 1): 1}
    assert len(list(log.directory.glob("*.wal"))) == 1
    log.kill()
    assert (log.open().producer_id, log.spool.epoch) == ("another", 4)
    assert await log.held() == log.expected(3, 2, 5)


@pytest.mark.parametrize("refusal", ["create", "write", "sync", "replace"])
@pytest.mark.parametrize("sealed", [True, False])
async def test_a_refused_move_has_not_happened(log: Log, refusal: str, sealed: bool) -> None:
    """The identity is as it was, and the events too; the next attempt may succeed."""
    producer = log.spool.producer_id
    log.append(3)
    if sealed:
        await log.spool.commit()
        await log.spool.close_segment()
    log.disk.refused = {refusal}
    with pytest.raises(SpoolError, match="cannot take another identity"):
        await move(log, "another", 2, Position(1, 1))
    assert (log.spool.producer_id, log.spool.held, log.spool.generated) == (producer, 3, Position(1, 3))
    log.disk.refused.clear()
    log.append(1)
    await log.spool.commit()
    assert await log.held() == log.expected(1, 1, 4)
    assert await move(log, "another", 2, Position(1, 1)) == 1
    assert await log.held() == log.expected(2, 2, 4)


async def test_old_segments_that_cannot_be_removed_do_not_come_back(log: Log) -> None:
    """Once the new identity is remembered the old numbers are void, whatever the disk still holds."""
    log.append(3)
    await log.spool.commit()
    log.disk.refused = {"unlink"}
    assert await move(log, "another", 2, Position(0, 0)) == 0
    assert await log.held() == log.expected(2, 1, 3)
    assert len(list(log.directory.glob("*.wal"))) == 2
    log.kill()
    log.disk.refused.clear()
    log.open()
    assert await log.held() == log.expected(2, 1, 3)
    assert len(list(log.directory.glob("*.wal"))) == 1


async def test_what_is_damaged_does_not_move(log: Log) -> None:
    """It counts as left behind, and the rest gets dense numbers."""
    log.append(5)
    await log.spool.commit()
    path = next(log.directory.glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[data.index(b"ev-00000003")] ^= 1
    path.write_bytes(data)
    assert await move(log, "another", 2, Position(0, 0)) == 1
    assert [event_id for _, _, event_id in await log.held()] == [f"ev-0000000{n}" for n in (1, 2, 4, 5)]
    assert (log.spool.generated, log.spool.held) == (Position(2, 4), 4)
