import pytest

from telemetry.batch import Position
from telemetry.errors import SpoolError
from telemetry.events import encode
from telemetry.wal.frame import encode_frame
from telemetry.wal.segment import SegmentHeader, encode_header, file_name
from telemetry.wal.slot_identity import IDENTITY_FILE
from tests.support import sample_events
from tests.support.spools.spool_log import Log


async def test_events_of_a_killed_process_keep_their_numbers(log: Log) -> None:
    """The durable events and the rest are one run; the new process begins the next epoch."""
    log.append(3)
    await log.spool.commit()
    log.append(2)
    log.kill()
    again = log.open()
    assert (again.recovered, again.was_clean, again.last_appended) == (5, False, Position(2, 0))
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


async def test_a_clean_end_is_saved(log: Log) -> None:
    """The next process finds that everything was shipped, and the last number of the epoch."""
    log.append(2)
    await log.spool.commit()
    log.spool.close(clean=True)
    again = log.open()
    assert (again.was_clean, again.epoch) == (True, 2)
    assert again.identity.ended == {(again.producer_id, 1): 2}


async def test_a_start_on_a_full_disk_loses_nothing(log: Log) -> None:
    """Events only in the ring are carried into the new epoch, because their numbers were never shipped."""
    log.append(2)
    await log.spool.commit()
    log.append(2)
    log.kill()
    log.disk.refused = {"create"}
    again = log.open()
    assert (again.recovered, again.last_appended, again.durable) == (4, Position(2, 2), Position(1, 2))
    log.kill()
    again = log.open()
    assert (again.recovered, again.last_appended) == (4, Position(3, 2))
    log.disk.refused.clear()
    await again.commit()
    assert await log.held() == [*log.expected(1, 1, 2), *log.expected(3, 3, 4)]


async def test_a_disk_that_refuses_everything_is_a_spool_error(log: Log) -> None:
    """Without an epoch of its own nothing can be numbered."""
    log.kill()
    log.disk.refused = {"replace"}
    with pytest.raises(SpoolError, match="Slot 0 cannot be used: No space left"):
        log.open()
    log.disk.refused.clear()
    log.open()


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_identity_is_restored_from_the_events(log: Log, committed: bool) -> None:
    """The producer id comes from the events, and the new epoch is above theirs."""
    producer = log.spool.producer_id
    log.append(3)
    if committed:
        await log.spool.commit()
    log.kill()
    (log.directory / IDENTITY_FILE).write_bytes(b"{")
    again = log.open()
    assert (again.producer_id, again.epoch, again.was_clean) == (producer, 2, False)
    assert await log.held() == log.expected(1, 1, 3)


async def test_an_empty_slot_gets_a_new_producer(log: Log) -> None:
    """Its epoch is above the previous one all the same, which the ring holds."""
    producer = log.spool.producer_id
    log.kill()
    (log.directory / IDENTITY_FILE).unlink()
    again = log.open()
    assert again.producer_id != producer
    assert (again.epoch, again.was_clean) == (2, True)


async def test_a_foreign_segment_is_neither_shipped_nor_removed(log: Log) -> None:
    """It was copied there by hand, so only an operator removes it."""
    log.append(1)
    await log.spool.commit()
    log.kill()
    header = SegmentHeader("foreign", 7, 1)
    path = log.directory / file_name(header)
    path.write_bytes(encode_header(header) + encode_frame(1, encode(sample_events.served(), "foreign", 7, 1)))
    again = log.open()
    assert await log.held() == log.expected(1, 1, 1)
    assert (again.epoch, again.held) == (2, 1)
    assert path.exists()
