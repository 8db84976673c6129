"""Orphaned slots are shipped and archived, and their replica finds them free."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from telemetry.archive.archive import Archive
from telemetry.consumer.consumer import Consumer
from telemetry.consumer.orphans import OrphanedSlots
from telemetry.consumer.sinks import CommittedEvents
from telemetry.events import Feedback
from telemetry.notes import Note, OrphanShipped
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.stream.namespace_owner import OwnerMark
from telemetry.wal.slot_inspection import holds_events, inspect_slots
from tests.support import sample_events

_SETTINGS = ProducerSettings(check_interval_s=0.02, linger_s=0.0, ring_bytes=65536)


class CollectingSink:
    """A sink that keeps the ids of feedback."""

    name = "collecting"

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def write(self, commit: CommittedEvents) -> None:
        self.ids += [record.event.event_id for record in commit.records if isinstance(record.event, Feedback)]


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def archived(tmp_path: Path, server: MemoryServer) -> AsyncIterator[CollectingSink]:
    seen = CollectingSink()
    settings = ConsumerSettings(block_ms=20, discover_interval_s=0.02)
    consumer = Consumer(MemoryStream(server), Archive(tmp_path / "archive"), [seen], settings)
    run = asyncio.create_task(consumer.run())
    yield seen
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run


async def _leave(spool: Path, server: MemoryServer, count: int) -> list[str]:
    """Accept feedback in a replica without a stream, and let it die."""
    server.reachable = False
    producer = Producer(spool, 0, _SETTINGS, MemoryStream(server))
    run = asyncio.create_task(producer.run())
    ids = [f"ev-{number:08d}" for number in range(count)]
    await producer.accept([sample_events.feedback(event_id=one) for one in ids])
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    producer.close()
    server.reachable = True
    return ids


async def test_events_of_a_dead_replica_are_shipped_and_archived(
    tmp_path: Path, server: MemoryServer, archived: CollectingSink, await_until: Callable[..., Awaitable[None]]
) -> None:
    """The slot is empty afterwards, and free."""
    spool = tmp_path / "spool"
    ids = await _leave(spool, server, 5)
    notes: list[Note] = []
    run = asyncio.create_task(OrphanedSlots(spool, _SETTINGS, lambda: MemoryStream(server), 0.05, notes.append).run())
    await await_until(lambda: archived.ids == ids, what="the archive")
    await await_until(lambda: any(isinstance(note, OrphanShipped) for note in notes), what="the adoption to end")
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    assert [note for note in notes if isinstance(note, OrphanShipped)] == [OrphanShipped(0, 5, 0)]
    assert not holds_events(spool / "0")
    assert not inspect_slots(spool)[0].held


async def test_a_held_slot_is_not_opened(tmp_path: Path, server: MemoryServer) -> None:
    """Its replica ships for itself."""
    producer = Producer(tmp_path, 0, _SETTINGS, MemoryStream(server))
    producer.offer(sample_events.served())
    orphans = OrphanedSlots(tmp_path, _SETTINGS, lambda: MemoryStream(server), 0.0)
    assert await orphans.ship_all(0.1) == 0
    assert not server.streams
    producer.close()


async def test_without_a_stream_a_slot_stays_free_for_its_replica(tmp_path: Path, server: MemoryServer) -> None:
    """Holding it has no use; the events left are reported."""
    await _leave(tmp_path, server, 2)
    server.reachable = False
    orphans = OrphanedSlots(tmp_path, _SETTINGS, lambda: MemoryStream(server), 0.0)
    before = inspect_slots(tmp_path)[0].epoch
    assert await orphans.ship_all(0.1) == 1
    assert inspect_slots(tmp_path)[0].epoch == before


async def test_ship_all_does_not_wait_for_the_time_to_pass(
    tmp_path: Path, server: MemoryServer, archived: CollectingSink
) -> None:
    """Everything is being stopped: the slot is shipped now."""
    spool = tmp_path / "spool"
    ids = await _leave(spool, server, 3)
    assert await OrphanedSlots(spool, _SETTINGS, lambda: MemoryStream(server), 3600.0).ship_all(10) == 0
    assert archived.ids == ids


@pytest.mark.parametrize("mark", [None, OwnerMark("another-archive")])
async def test_a_slot_is_not_opened_where_its_events_must_not_go(
    tmp_path: Path, server: MemoryServer, mark: OwnerMark | None
) -> None:
    """Its replica may restart at any moment; no event of it reaches that Redis."""
    spool = tmp_path / "spool"
    await _leave(spool, server, 5)
    server.mark = mark
    notes: list[Note] = []
    orphans = OrphanedSlots(spool, _SETTINGS, lambda: MemoryStream(server), 0.05, notes.append, archive="our-archive")
    assert await orphans.ship_all(0.2) == 1
    assert (notes, server.announced, server.streams) == ([], {}, {})
    server.mark = OwnerMark("our-archive")
    await orphans.ship_all(0.2)
    assert server.streams != {}
