import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.batch import Position, from_entry
from telemetry.errors import BadEventError, SlotTakenError, SpoolFull
from telemetry.events import Feedback, Served, System, decode
from telemetry.memory import MemoryServer, MemoryStream
from telemetry.notes import Dropped, ProducerNote
from telemetry.producer import Offered, Producer
from telemetry.settings import ProducerSettings
from tests import made

SMALL = ProducerSettings(buffer_bytes=20_000, check_interval_s=0.01, linger_s=0.0)


def served(text: str = "42") -> Served:
    return made.served(user_id=text)


def feedback(text: str = "42") -> Feedback:
    return made.feedback(user_id=text)


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def producer(tmp_path: Path, server: MemoryServer) -> Iterator[Producer]:
    producer = Producer.open(tmp_path / "spool", 0, SMALL, MemoryStream(server))
    yield producer
    producer.close()


def lines_in(server: MemoryServer, producer: str) -> list[bytes]:
    return [line for entry in server.logs[producer].entries.values() for line in from_entry(entry).lines]


def assert_sums(producer: Producer) -> None:
    counters = producer.counters
    classes = [counters.served, counters.feedback, counters.system]
    for one in classes:
        assert one.offered == one.accepted + one.refused + one.dropped
    accepted = sum(one.accepted for one in classes)
    assert accepted == counters.released + counters.relinquished + counters.buffered_events


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
    assert producer.counters.buffered_bytes <= 16_000
    assert producer.offer(feedback()) is Offered.ACCEPTED
    assert (await producer.accept([feedback()] * 3)).accepted == 3
    while producer.offer(feedback()) is Offered.ACCEPTED:
        pass
    with pytest.raises(SpoolFull, match="slot 0") as caught:
        await producer.accept([feedback()])
    assert caught.value.retry_after_s == 1.0
    assert producer.offer(served()) is Offered.DROPPED
    assert producer.counters.buffered_bytes <= 20_000
    assert_sums(producer)


async def test_a_clients_feedback_is_taken_whole_or_not_at_all(producer: Producer) -> None:
    """If not all of it fits, or one event cannot be written, nothing is taken."""
    with pytest.raises(SpoolFull):
        await producer.accept([feedback()] * 1000)
    with pytest.raises(BadEventError):
        await producer.accept([feedback(), feedback("\ud800")])
    assert producer.counters.feedback.refused == 1002
    assert producer.counters.buffered_events == 0
    answer = await producer.accept([feedback()] * 5)
    assert (answer.accepted, answer.durability) == (5, "memory")
    assert_sums(producer)


async def test_drops_become_one_gap_record_as_soon_as_there_is_room(
    tmp_path: Path, server: MemoryServer, await_until: Callable[..., Awaitable[None]]
) -> None:
    """The archive will know how many events it lacks, why, and between which numbers."""
    notes: list[ProducerNote] = []
    producer = Producer.open(tmp_path / "spool", 0, SMALL, MemoryStream(server), notes.append)
    while producer.offer(served()) is Offered.ACCEPTED:
        pass
    for _ in range(4):
        assert producer.offer(served()) is Offered.DROPPED
    last = producer.counters.served.accepted
    assert Dropped(5, "no budget") not in notes
    run = asyncio.create_task(producer.run())
    await await_until(lambda: producer.counters.shipped == last)
    server.watermarks[producer.producer_id] = Position(1, last)
    await await_until(lambda: Dropped(5, "no budget") in notes)
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
    """Whatever is handed in, the request goes on; what cannot be written is turned away and counted."""
    nonsense: Any = object()
    assert producer.offer(served("\ud800")) is Offered.DROPPED
    assert producer.offer(feedback("\ud800")) is Offered.REFUSED
    assert producer.offer(nonsense) is Offered.REFUSED
    assert_sums(producer)
    producer.close()
    assert producer.offer(served()) is Offered.DROPPED
    assert producer.offer(feedback()) is Offered.REFUSED


async def test_an_unclean_end_is_noted_by_the_next_start(tmp_path: Path, server: MemoryServer) -> None:
    """If events were left behind, the first record of the next epoch says so; after a clean end it does not."""
    server.reachable = False
    first = Producer.open(tmp_path, 0, SMALL, MemoryStream(server))
    first.offer(served())
    assert await first.drain(0.1) == 1
    first.close()
    server.reachable = True
    second = Producer.open(tmp_path, 0, SMALL, MemoryStream(server))
    assert await second.drain(5) == 0
    second.close()
    (line,) = lines_in(server, second.producer_id)
    record = decode(line)
    assert isinstance(record.event, System)
    assert (record.event.kind, record.epoch, record.seq) == ("unclean_start", 2, 1)
    third = Producer.open(tmp_path, 0, SMALL, MemoryStream(server))
    assert third.counters.system.offered == 0
    third.close()


async def test_two_producers_of_one_spool_have_two_slots(tmp_path: Path, producer: Producer) -> None:
    """The second gets the next slot, and may not have the first one's."""
    spool = tmp_path / "spool"
    with pytest.raises(SlotTakenError):
        Producer.open(spool, 0, SMALL, MemoryStream(MemoryServer()))
    other = Producer.open(spool, None, SMALL, MemoryStream(MemoryServer()))
    assert other.slot == 1
    assert other.producer_id != producer.producer_id
    other.close()


ACTIONS = st.lists(
    st.sampled_from(["served", "feedback", "batch", "ship", "archive", "forget", "away", "back", "lose reply"]),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_the_sums_balance_and_nothing_is_lost_under_any_interleaving(tmp_path_factory: Any, actions: list[str]) -> None:
    """However events, outages, lost memory and archiving interleave: every sum balances, and the archive is dense."""
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
    producer = Producer.open(spool, 0, SMALL, stream)
    archive: dict[int, bytes] = {}

    def commit() -> None:
        log = server.logs.get(producer.producer_id)
        for entry in log.entries.values() if log else ():
            batch = from_entry(entry)
            assert batch.first_seq <= len(archive) + 1, "the stream has a hole"
            archive.update(enumerate(batch.lines, batch.first_seq))
        server.watermarks[producer.producer_id] = Position(1, len(archive))

    for action in actions:
        if action == "served":
            for _ in range(5):
                producer.offer(served())
        elif action == "feedback":
            producer.offer(feedback())
        elif action == "batch":
            try:
                await producer.accept([feedback()] * 20)
            except SpoolFull:
                assert producer.counters.buffered_bytes > 10_000
        elif action == "ship":
            await producer.drain(0.02)
        elif action == "archive" and server.reachable:
            commit()
        elif action == "forget":
            server.forget()
        elif action in ("away", "back"):
            server.reachable = action == "back"
        elif action == "lose reply":
            stream.lose_reply = True
        assert_sums(producer)
    server.reachable = True
    while producer.counters.buffered_events:
        assert await producer.drain(5) == 0
        commit()
        await producer.drain(5)
    counters = producer.counters
    accepted = counters.served.accepted + counters.feedback.accepted + counters.system.accepted
    records = [decode(archive[seq]) for seq in sorted(archive)]
    assert [record.seq for record in records] == list(range(1, accepted + 1))
    gaps = sum(record.event.count or 0 for record in records if isinstance(record.event, System))
    assert gaps == counters.served.dropped
    assert_sums(producer)
    producer.close()
