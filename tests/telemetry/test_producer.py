import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.batch import Position
from telemetry.errors import BadEventError, EventsRefusedError, SlotTakenError
from telemetry.events import Feedback, Served, System, decode
from telemetry.notes import DiskFailed, Dropped, Note
from telemetry.producer import Acceptance, Offered, Producer
from telemetry.settings import ProducerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support.spools.producers import SMALL, Gate, assert_sums, feedback, lines_in, running, served

AwaitUntil = Callable[..., Awaitable[None]]


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def producer(tmp_path: Path, server: MemoryServer) -> AsyncIterator[Producer]:
    producer = Producer(tmp_path / "spool", 0, SMALL, MemoryStream(server))
    yield producer
    producer.close()


async def test_offered_events_are_shipped_in_order_with_dense_numbers(producer: Producer, server: MemoryServer) -> None:
    """What is accepted is in the stream after a drain, numbered from 1 without holes."""
    for number in range(30):
        assert producer.offer(served(str(number))) is Offered.ACCEPTED
    assert await producer.drain(5) == 0
    records = [decode(line) for line in lines_in(server, producer.producer_id)]
    assert [(record.epoch, record.seq) for record in records] == [(1, seq) for seq in range(1, 31)]
    assert [record.event for record in records] == [served(str(number)) for number in range(30)]
    assert_sums(producer)


async def test_served_events_are_dropped_before_feedback_is_refused(producer: Producer) -> None:
    """Served events stop at their share of the budget; feedback goes on into the reserve, and then gets a time."""
    while producer.offer(served()) is Offered.ACCEPTED:
        pass
    assert 40_000 < producer.counters.spooled_bytes <= 48_000

    async def fill() -> None:
        while True:
            await producer.accept([feedback()])

    async with running(producer):
        assert (await producer.accept([feedback()] * 3)) == Acceptance(3, "disk")
        with pytest.raises(EventsRefusedError, match="Slot 0") as caught:
            await fill()
        assert caught.value.retry_after_s == 1.0
        assert producer.offer(served()) is Offered.DROPPED
    assert producer.counters.spooled_bytes <= 60_000
    assert producer.counters.feedback.accepted > 10
    assert_sums(producer)


async def test_feedback_of_one_request_is_accepted_whole_or_not_at_all(producer: Producer) -> None:
    """If not all of it fits, or one event cannot be written, nothing is taken."""
    with pytest.raises(EventsRefusedError):
        await producer.accept([feedback()] * 1000)
    with pytest.raises(BadEventError):
        await producer.accept([feedback(), feedback("\ud800")])
    assert producer.counters.feedback.refused == 1002
    async with running(producer):
        answer = await producer.accept([feedback()] * 5)
    assert (answer.accepted, answer.durability) == (5, "disk")
    assert_sums(producer)


async def test_feedback_is_answered_after_fdatasync(
    tmp_path: Path, server: MemoryServer, await_until: AwaitUntil
) -> None:
    """After the fdatasync and not after the write, together with all others that wait for it."""
    gate = Gate()
    producer = Producer(tmp_path, 0, SMALL, MemoryStream(server), hit=gate)
    async with running(producer):
        gate.open.clear()
        first = asyncio.create_task(producer.accept([feedback()]))
        await await_until(lambda: gate.reached == 1)
        others = [asyncio.create_task(producer.accept([feedback()])) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in (first, *others))
        assert gate.synced == 0
        gate.open.set()
        assert await first == Acceptance(1)
        assert await asyncio.gather(*others) == [Acceptance(1)] * 5
    assert gate.synced == 2
    assert_sums(producer)
    producer.close()


async def test_a_failing_disk_refuses_feedback_and_loses_nothing(tmp_path: Path, server: MemoryServer) -> None:
    """Feedback gets 503, served events stay, and all continue once the disk recovers."""
    gate = Gate()
    producer = Producer(tmp_path, 0, SMALL, MemoryStream(server), hit=gate)
    async with running(producer):
        gate.fails = True
        producer.offer(served())
        with pytest.raises(EventsRefusedError, match="refused") as caught:
            await producer.accept([feedback()])
        assert caught.value.retry_after_s == 1.0
        with pytest.raises(EventsRefusedError, match="refused a moment ago"):
            await producer.accept([feedback()] * 2)
        assert_sums(producer)
        gate.fails = False
        assert producer.offer(served()) is Offered.ACCEPTED
    assert await producer.drain(5) == 0
    records = [decode(line) for line in lines_in(server, producer.producer_id)]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    classes = Counter(type(record.event) for record in records)
    assert (classes[Served], classes[Feedback]) == (2, 1)
    gaps = [record.event for record in records if isinstance(record.event, System)]
    assert [(gap.kind, gap.of_class, gap.count, gap.reason) for gap in gaps] == [("gap", "feedback", 2, "disk")]
    assert_sums(producer)
    producer.close()


async def test_a_slow_disk_refuses_feedback(tmp_path: Path, server: MemoryServer, await_until: AwaitUntil) -> None:
    """The refused feedback is still archived, once, even if the disk then fails."""
    gate = Gate()
    hasty = ProducerSettings(ring_bytes=64 * 1024, accept_timeout_s=0.05, commit_interval_s=0.001, linger_s=0.0)
    notes: list[Note] = []
    producer = Producer(tmp_path, 0, hasty, MemoryStream(server), notes.append, gate)
    async with running(producer):
        gate.open.clear()
        with pytest.raises(EventsRefusedError, match="too long"):
            await producer.accept([feedback()])
        gate.fails = True
        gate.open.set()
        await await_until(lambda: any(isinstance(note, DiskFailed) for note in notes))
        assert_sums(producer)
        gate.fails = False
        await await_until(lambda: producer.counters.shipped == 1)
    assert_sums(producer)
    producer.close()


async def test_drops_become_one_gap_record_as_soon_as_there_is_room(
    tmp_path: Path, server: MemoryServer, await_until: AwaitUntil
) -> None:
    """The archive learns how many events it lacks, why, and between which numbers."""
    notes: list[Note] = []
    producer = Producer(tmp_path / "spool", 0, SMALL, MemoryStream(server), notes.append)
    while producer.offer(served()) is Offered.ACCEPTED:
        pass
    for _ in range(4):
        assert producer.offer(served()) is Offered.DROPPED
    last = producer.counters.served.accepted
    assert Dropped(5, "served", "no budget") not in notes
    run = asyncio.create_task(producer.run())
    await await_until(lambda: producer.counters.shipped == last)
    server.watermarks[producer.producer_id] = Position(1, last)
    await await_until(lambda: Dropped(5, "served", "no budget") in notes)
    assert await producer.drain(5) == 0
    gap = decode(lines_in(server, producer.producer_id)[-1]).event
    assert isinstance(gap, System)
    assert (gap.kind, gap.of_class, gap.count, gap.reason) == ("gap", "served", 5, "no budget")
    assert (gap.from_seq, gap.to_seq) == (last, last)
    assert_sums(producer)
    producer.close()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_offer_never_raises(producer: Producer) -> None:
    """With any argument the request continues; an event that cannot be encoded is dropped and counted."""
    nonsense: Any = object()
    assert producer.offer(served("\ud800")) is Offered.DROPPED
    assert producer.offer(nonsense) is Offered.DROPPED
    assert_sums(producer)
    producer.close()
    assert producer.offer(served()) is Offered.DROPPED
    with pytest.raises(EventsRefusedError):
        await producer.accept([feedback()])
    producer.close()


async def test_the_start_after_an_unclean_end_records_it(tmp_path: Path, server: MemoryServer) -> None:
    """If events were left behind they go first, under their own numbers; then a record says so. After a clean end none
    does."""
    server.reachable = False
    first = Producer(tmp_path, 0, SMALL, MemoryStream(server))
    for number in range(3):
        first.offer(served(str(number)))
    assert await first.drain(0.1) == 3
    assert_sums(first)
    first.close()
    server.reachable = True
    second = Producer(tmp_path, 0, SMALL, MemoryStream(server))
    assert (second.counters.recovered, second.epoch) == (3, 2)
    second.offer(served("3"))
    assert await second.drain(5) == 0
    assert_sums(second)
    server.watermarks[second.producer_id] = Position(2, 2)
    second.close()
    records = [decode(line) for line in lines_in(server, second.producer_id)]
    assert [(record.epoch, record.seq) for record in records] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert [record.event for record in records[:4]] == [served(str(number)) for number in range(4)]
    note = records[4].event
    assert isinstance(note, System)
    assert note.kind == "unclean_start"
    third = Producer(tmp_path, 0, SMALL, MemoryStream(server))
    assert await third.drain(5) == 0
    assert (third.counters.system.offered, third.counters.recovered, third.counters.released) == (0, 5, 5)
    assert_sums(third)
    third.close()


async def test_draining_until_it_is_archived(tmp_path: Path, server: MemoryServer, await_until: AwaitUntil) -> None:
    """The drain of an orphaned slot lasts until the archive has its events and the write-ahead log is empty."""
    producer = Producer(tmp_path, 0, SMALL, MemoryStream(server))
    for _ in range(5):
        producer.offer(served())
    drain = asyncio.create_task(producer.drain(30, archived=True))
    await await_until(lambda: producer.counters.shipped == 5)
    assert not drain.done()
    server.flush_all()
    await await_until(lambda: producer.counters.shipped == 10)
    server.watermarks[producer.producer_id] = Position(1, 5)
    assert await drain == 0
    assert (producer.counters.released, producer.counters.spooled_events) == (5, 0)
    producer.close()
    assert list((tmp_path / "0").glob("*.wal")) == []


async def test_two_producers_of_one_spool_have_two_slots(tmp_path: Path, producer: Producer) -> None:
    """The second gets the next slot, and may not have the first one's."""
    spool = tmp_path / "spool"
    with pytest.raises(SlotTakenError):
        Producer(spool, 0, SMALL, MemoryStream(MemoryServer()))
    other = Producer(spool, None, SMALL, MemoryStream(MemoryServer()))
    assert other.slot == 1
    assert other.producer_id != producer.producer_id
    other.close()
