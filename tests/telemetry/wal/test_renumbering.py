import pytest

from telemetry.batch import Position
from telemetry.errors import SpoolError
from tests.support.spools.spool_log import Log


async def move(log: Log, producer: str, epoch: int, after: Position) -> int:
    return await log.spool.renumber_after(after, producer=producer, epoch=epoch)


async def test_a_new_epoch_renumbers_what_the_stream_does_not_have(log: Log) -> None:
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
    assert (log.spool.last_appended, log.spool.held) == (Position(9, 5), 9)
    assert log.spool.identity.ended == {(producer, 1): 3, (producer, 2): 1}
    log.append(1)
    await log.spool.commit()
    log.kill()
    again = log.open()
    assert (again.producer_id, again.epoch) == (producer, 10)
    assert await log.held() == [*expected, (9, 6, "ev-00000010")]


async def test_a_new_producer_renumbers_everything_that_no_stream_has(log: Log) -> None:
    """Also those of earlier epochs; events that the old stream has stay with it, and none of them here."""
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
async def test_a_refused_renumbering_changes_nothing(log: Log, refusal: str, sealed: bool) -> None:
    """Identity and events are as before; the next attempt may succeed."""
    producer = log.spool.producer_id
    log.append(3)
    if sealed:
        await log.spool.commit()
        await log.spool.close_segment()
    log.disk.refused = {refusal}
    with pytest.raises(SpoolError, match="cannot take another identity"):
        await move(log, "another", 2, Position(1, 1))
    assert (log.spool.producer_id, log.spool.held, log.spool.last_appended) == (producer, 3, Position(1, 3))
    log.disk.refused.clear()
    log.append(1)
    await log.spool.commit()
    assert await log.held() == log.expected(1, 1, 4)
    assert await move(log, "another", 2, Position(1, 1)) == 1
    assert await log.held() == log.expected(2, 2, 4)


async def test_old_segments_that_cannot_be_removed_do_not_come_back(log: Log) -> None:
    """Once the new identity is saved the old numbers do not count, whatever the disk still holds."""
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


async def test_damaged_events_are_not_renumbered(log: Log) -> None:
    """They count as left behind, and the rest gets dense numbers."""
    log.append(5)
    await log.spool.commit()
    path = next(log.directory.glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[data.index(b"ev-00000003")] ^= 1
    path.write_bytes(data)
    assert await move(log, "another", 2, Position(0, 0)) == 1
    assert [event_id for _, _, event_id in await log.held()] == [f"ev-0000000{n}" for n in (1, 2, 4, 5)]
    assert (log.spool.last_appended, log.spool.held) == (Position(2, 4), 4)
