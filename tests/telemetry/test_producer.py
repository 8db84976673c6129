import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.batch import Position, from_entry
from telemetry.errors import BadEventError, SlotTakenError, SpoolFull
from telemetry.events import Feedback, Served, System, decode
from telemetry.notes import Dropped, Note
from telemetry.producer import Acceptance, Offered, Producer
from telemetry.settings import ProducerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.wal.slot_inspection import spooled_lines
from tests.support import sample_events

AwaitUntil = Callable[..., Awaitable[None]]
KILLS = 100 if os.environ.get("RECOLLECT_TEST_LONG") else 8
SMALL = ProducerSettings(
    spool_bytes=60_000, ring_bytes=64 * 1024, check_interval_s=0.01, linger_s=0.0, commit_interval_s=0.001
)


def served(text: str = "42") -> Served:
    return sample_events.served(user_id=text)


def feedback(text: str = "42") -> Feedback:
    return sample_events.feedback(user_id=text)


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def producer(tmp_path: Path, server: MemoryServer) -> AsyncIterator[Producer]:
    producer = Producer(tmp_path / "spool", 0, SMALL, MemoryStream(server))
    yield producer
    producer.close()


@asynccontextmanager
async def running(producer: Producer) -> AsyncIterator[None]:
    run = asyncio.create_task(producer.run())
    try:
        yield
    finally:
        run.cancel()
        await asyncio.wait([run])


def lines_in(server: MemoryServer, producer: str) -> list[bytes]:
    return [line for entry in server.streams[producer].entries.values() for line in from_entry(entry).lines]


def assert_sums(producer: Producer) -> None:
    counters = producer.counters
    classes = [counters.served, counters.feedback, counters.system]
    for one in classes:
        assert one.offered == one.accepted + one.refused + one.dropped
    taken = counters.recovered + sum(one.accepted for one in classes)
    assert taken == counters.released + counters.relinquished + counters.spooled_events


async def test_offered_events_get_out_in_order_with_dense_numbers(producer: Producer, server: MemoryServer) -> None:
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
        with pytest.raises(SpoolFull, match="Slot 0") as caught:
            await fill()
        assert caught.value.retry_after_s == 1.0
        assert producer.offer(served()) is Offered.DROPPED
    assert producer.counters.spooled_bytes <= 60_000
    assert producer.counters.feedback.accepted > 10
    assert_sums(producer)


async def test_a_clients_feedback_is_taken_whole_or_not_at_all(producer: Producer) -> None:
    """If not all of it fits, or one event cannot be written, nothing is taken."""
    with pytest.raises(SpoolFull):
        await producer.accept([feedback()] * 1000)
    with pytest.raises(BadEventError):
        await producer.accept([feedback(), feedback("\ud800")])
    assert producer.counters.feedback.refused == 1002
    async with running(producer):
        answer = await producer.accept([feedback()] * 5)
    assert (answer.accepted, answer.durability) == (5, "disk")
    assert_sums(producer)


class Gate:
    """A failpoint that holds or fails the thread that writes, between the write and its fdatasync."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.fails = False
        self.synced = 0
        self.reached = 0

    def __call__(self, name: str) -> None:
        if name == "spool.written":
            self.reached += 1
            self.open.wait(30)
            if self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced += name == "spool.synced"


async def test_feedback_is_answered_after_fdatasync(
    tmp_path: Path, server: MemoryServer, await_until: AwaitUntil
) -> None:
    """Not when it was written, and together with what else waits for the same one."""
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


async def test_a_refusing_disk_is_a_refusal_and_no_loss(tmp_path: Path, server: MemoryServer) -> None:
    """The client is told 503; served events stay, and everything goes on as soon as the disk is well again."""
    gate = Gate()
    producer = Producer(tmp_path, 0, SMALL, MemoryStream(server), hit=gate)
    async with running(producer):
        gate.fails = True
        producer.offer(served())
        with pytest.raises(SpoolFull, match="refused") as caught:
            await producer.accept([feedback()])
        assert caught.value.retry_after_s == 1.0
        with pytest.raises(SpoolFull, match="refused a moment ago"):
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


async def test_a_disk_that_is_too_slow_is_a_refusal(
    tmp_path: Path, server: MemoryServer, await_until: AwaitUntil
) -> None:
    """What the client was not promised is archived all the same, once, even if the disk fails after all."""
    gate = Gate()
    hasty = ProducerSettings(ring_bytes=64 * 1024, accept_timeout_s=0.05, commit_interval_s=0.001, linger_s=0.0)
    producer = Producer(tmp_path, 0, hasty, MemoryStream(server), hit=gate)
    async with running(producer):
        gate.open.clear()
        with pytest.raises(SpoolFull, match="too long"):
            await producer.accept([feedback()])
        gate.fails = True
        gate.open.set()
        await await_until(lambda: producer._spool.schedule.is_holding_back)
        assert_sums(producer)
        gate.fails = False
        await await_until(lambda: producer.counters.shipped == 1)
    assert_sums(producer)
    producer.close()


async def test_drops_become_one_gap_record_as_soon_as_there_is_room(
    tmp_path: Path, server: MemoryServer, await_until: AwaitUntil
) -> None:
    """The archive will know how many events it lacks, why, and between which numbers."""
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


async def test_drops_of_a_killed_process_are_recorded_by_the_next(tmp_path: Path, server: MemoryServer) -> None:
    """They are counted where the kill cannot reach them."""
    code = """
import asyncio, os, pathlib, sys
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.producer import Offered, Producer
from telemetry.settings import ProducerSettings
from tests.support import sample_events

async def main():
    settings = ProducerSettings(spool_bytes=60_000)
    producer = Producer(pathlib.Path(sys.argv[1]), 0, settings, MemoryStream(MemoryServer()))
    while producer.offer(sample_events.served()) is Offered.ACCEPTED:
        pass
    producer.offer(sample_events.served())
    os._exit(9)

asyncio.run(main())
"""
    argv = [sys.executable, "-c", code, str(tmp_path)]
    await asyncio.to_thread(subprocess.run, argv, cwd=Path(__file__).parents[2], timeout=60)
    producer = Producer(tmp_path, 0, ProducerSettings(), MemoryStream(server))
    assert await producer.drain(5) == 0
    events = [decode(line).event for line in lines_in(server, producer.producer_id)]
    gaps = [event for event in events if isinstance(event, System) and event.kind == "gap"]
    assert [(gap.of_class, gap.count, gap.reason) for gap in gaps] == [("served", 2, "no budget")]
    producer.close()


async def test_offer_never_raises(producer: Producer) -> None:
    """Whatever is handed in, the request goes on; what cannot be written is turned away and counted."""
    nonsense: Any = object()
    assert producer.offer(served("\ud800")) is Offered.DROPPED
    assert producer.offer(nonsense) is Offered.DROPPED
    assert_sums(producer)
    producer.close()
    assert producer.offer(served()) is Offered.DROPPED
    with pytest.raises(SpoolFull):
        await producer.accept([feedback()])
    producer.close()


async def test_an_unclean_end_is_noted_by_the_next_start(tmp_path: Path, server: MemoryServer) -> None:
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
    """Whoever ships a dead replica's events stays until the archive has them and the log holds nothing."""
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


CHILD = """
import asyncio, os, pathlib, sys
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.producer import Offered, Producer
from telemetry.settings import ProducerSettings
from tests.support import sample_events

async def main():
    server = MemoryServer()
    server.reachable = False
    settings = ProducerSettings(ring_bytes=256 * 1024, commit_interval_s=0.002)
    producer = Producer(pathlib.Path(sys.argv[1]), 0, settings, MemoryStream(server))
    asyncio.create_task(producer.run())
    number = 0
    while True:
        number += 1
        event_id = f"ev-{sys.argv[2]}-{number}"
        if number % 7:
            taken = producer.offer(sample_events.served(event_id=event_id)) is Offered.ACCEPTED
        else:
            taken = (await producer.accept([sample_events.feedback(event_id=event_id)])).accepted == 1
        if taken:
            os.write(1, event_id.encode() + b"\\n")
        if number % 3 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    """Processes are killed at random moments, one after the other on one slot: every event that one of them said was
    accepted is held exactly once."""
    rng = Random(1)
    accepted: list[str] = []
    for number in range(KILLS):
        argv = [sys.executable, "-c", CHILD, str(tmp_path), str(number)]
        child = subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
        assert child.stdout is not None
        head = os.read(child.stdout.fileno(), 1)
        killer = threading.Timer(rng.uniform(0.0, 0.15), child.send_signal, [signal.SIGKILL])
        killer.start()
        told = (head + child.stdout.read()).decode()
        assert child.wait(30) == -signal.SIGKILL
        child.stdout.close()
        accepted += told.splitlines()
    # What a segment has may be in the ring still, under the same number.
    held = {record[1:]: record.event.event_id for record in (decode(line) for _, line in spooled_lines(tmp_path))}
    found = Counter(held.values())
    assert len(accepted) > 20 * KILLS
    assert {event_id for event_id in accepted if found[event_id] != 1} == set()
    for epoch in range(1, KILLS + 1):
        numbers = sorted(seq for _, one, seq in held if one == epoch)
        assert numbers == list(range(1, len(numbers) + 1))


ACTIONS = st.lists(
    st.sampled_from(
        ["served", "feedback", "batch", "ship", "archive", "forget", "away", "back", "lose reply", "fail", "heal"]
    ),
    max_size=50,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_the_sums_balance_and_nothing_is_lost_under_any_interleaving(tmp_path_factory: Any, actions: list[str]) -> None:
    """However events, outages, lost memory, a bad disk and archiving interleave: every sum balances, and the archive is
    dense."""
    asyncio.run(_interleave(tmp_path_factory.mktemp("spool"), actions))


class ForgetfulStream(MemoryStream):
    """Loses one reply after the command was applied, when told to."""

    lose_reply = False

    async def append(self, producer: str, batch: Any, *, create: bool) -> Any:
        result = await super().append(producer, batch, create=create)
        if self.lose_reply:
            self.lose_reply = False
            await self.close()
            self._check()
        return result


async def _interleave(spool: Path, actions: list[str]) -> None:
    server = MemoryServer()
    stream = ForgetfulStream(server)
    gate = Gate()
    producer = Producer(spool, 0, SMALL, stream, hit=gate)
    archive: dict[int, bytes] = {}

    def commit() -> None:
        log = server.streams.get(producer.producer_id)
        for entry in log.entries.values() if log else ():
            batch = from_entry(entry)
            assert batch.first_seq <= len(archive) + 1, "the stream has a hole"
            archive.update(enumerate(batch.lines, batch.first_seq))
        server.watermarks[producer.producer_id] = Position(1, len(archive))

    async def accept(count: int) -> None:
        # What refused a moment ago is asked before the commit below, which may find the disk well again.
        is_refusing = gate.fails or producer._spool.schedule.is_holding_back
        taking = asyncio.create_task(producer.accept([feedback()] * count))
        await asyncio.sleep(0)
        await producer._spool.commit()
        try:
            await taking
        except SpoolFull:
            assert is_refusing or producer._spool.schedule.is_holding_back or producer.counters.spooled_bytes > 30_000

    for action in actions:
        if action == "served":
            for _ in range(15):
                producer.offer(served())
        elif action in ("feedback", "batch"):
            await accept(1 if action == "feedback" else 40)
        elif action == "ship":
            await producer.drain(0.02)
        elif action == "archive" and server.reachable:
            commit()
        elif action == "forget":
            server.flush_all()
        elif action in ("away", "back"):
            server.reachable = action == "back"
        elif action == "lose reply":
            stream.lose_reply = True
        elif action in ("fail", "heal"):
            gate.fails = action == "fail"
        assert_sums(producer)
    server.reachable = True
    gate.fails = False
    while producer.counters.unarchived_events or producer._drops.counts:
        assert await producer.drain(5) == 0
        commit()
        await producer.drain(5)
    counters = producer.counters
    accepted = counters.served.accepted + counters.feedback.accepted + counters.system.accepted
    records = [decode(archive[seq]) for seq in sorted(archive)]
    assert [record.seq for record in records] == list(range(1, accepted + 1))
    gaps = Counter[str | None]()
    for record in records:
        if isinstance(record.event, System):
            gaps[record.event.of_class] += record.event.count or 0
    assert (gaps["served"], gaps["feedback"]) == (counters.served.dropped, counters.feedback.refused)
    assert_sums(producer)
    producer.close()
