import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.batch import Position, from_entry
from telemetry.errors import EventsRefusedError
from telemetry.events import System, decode
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support.spools.producers import SMALL, Gate, assert_sums, feedback, served

ACTIONS = st.lists(
    st.sampled_from(
        ["served", "feedback", "batch", "ship", "archive", "flush", "away", "back", "lose reply", "fail", "heal"]
    ),
    max_size=50,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_the_sums_balance_and_nothing_is_lost_under_any_interleaving(tmp_path_factory: Any, actions: list[str]) -> None:
    """However events, outages, lost memory, a bad disk and archiving interleave: every sum balances, and the archive is
    dense."""
    asyncio.run(_interleave(tmp_path_factory.mktemp("spool"), actions))


class ReplyLosingStream(MemoryStream):
    """Loses one reply on request, after the command was applied."""

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
    stream = ReplyLosingStream(server)
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
        # Read before the commit below, after which the disk may have recovered.
        is_refusing = gate.fails or producer._spool.schedule.is_holding_back
        accepting = asyncio.create_task(producer.accept([feedback()] * count))
        await asyncio.sleep(0)
        await producer._spool.commit()
        try:
            await accepting
        except EventsRefusedError:
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
        elif action == "flush":
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
