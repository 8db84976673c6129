"""Whose a place in Redis is: nothing of one installation gets into another's archive, whatever Redis loses."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.archive.archive import Archive
from telemetry.archive.archive_reader import read
from telemetry.catalogue.archive_identity import identify, is_copy, known_identity
from telemetry.consumer.consumer import Consumer
from telemetry.events import Served, decode
from telemetry.notes import Disconnected, Note
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.namespace_owner import OwnerMark, ShipDecision, decide_shipping
from telemetry.stream.redis_stream import RedisStream
from telemetry.wal.slot_identity import archive_of_slot
from tests.support import sample_events

AwaitUntil = Callable[..., Awaitable[None]]
QUICK = ConsumerSettings(
    discover_interval_s=0.05, block_ms=50, commit_interval_s=0.0, heartbeat_s=0.1, takeover_s=0.6, backoff_s=0.1
)
SHIP = ProducerSettings(check_interval_s=0.05, linger_s=0.001, backoff_s=0.1)


@pytest.mark.parametrize(
    ("belongs", "mark", "decision"),
    [
        (None, None, ShipDecision.SHIP),
        (None, OwnerMark("a"), ShipDecision.SHIP),
        ("a", OwnerMark("a"), ShipDecision.SHIP),
        ("a", OwnerMark("b", ("c", "a")), ShipDecision.SHIP),
        ("a", None, ShipDecision.WAIT),
        ("a", OwnerMark("b"), ShipDecision.REFUSE),
        ("a", OwnerMark("b", ("c",)), ShipDecision.REFUSE),
    ],
)
def test_a_slot_ships_to_its_archive_and_to_those_that_replaced_it(
    belongs: str | None, mark: OwnerMark | None, decision: ShipDecision
) -> None:
    """Without a mark a slot of a known archive waits; a slot that has shipped nothing may ship anywhere."""
    assert decide_shipping(belongs, mark) is decision


def test_a_mark_names_the_archives_it_replaces() -> None:
    """The last one first, each once, never itself, and a limited number."""
    assert str(OwnerMark("b").in_place_of(OwnerMark("a"))) == "b a"
    assert OwnerMark("a").in_place_of(OwnerMark("b", ("a",))) == OwnerMark("a", ("b",))
    assert OwnerMark.parse("c b a") == OwnerMark("c", ("b", "a"))
    assert OwnerMark.parse("") is None
    mark = OwnerMark("a")
    for number in range(40):
        mark = OwnerMark(f"n{number}").in_place_of(mark)
    assert len(mark.replaced) == 16


def test_an_archive_keeps_its_identity(tmp_path: Path) -> None:
    """Reading creates nothing; the replaced archives are kept, too."""
    assert known_identity(tmp_path / "archive") is None
    assert not (tmp_path / "archive").exists()
    mark = identify(tmp_path / "archive")
    assert known_identity(tmp_path / "archive") == identify(tmp_path / "archive") == mark
    assert identify(tmp_path / "archive", in_place_of=OwnerMark("x")) == OwnerMark(mark.archive, ("x",))
    assert known_identity(tmp_path / "archive") == OwnerMark(mark.archive, ("x",))


def test_a_copy_of_an_archive_is_detected(tmp_path: Path) -> None:
    """Another file in another folder; renamed, or restored where it was, it is the archive itself."""
    root, copy = tmp_path / "archive", tmp_path / "copy"
    mark = identify(root)
    shutil.copytree(root, copy)
    assert (is_copy(root), is_copy(copy)) == (False, True)
    assert identify(copy) == mark
    assert is_copy(copy)
    own = identify(copy, claim=True)
    assert (own.archive != mark.archive, own.replaced) == (True, (mark.archive,))
    assert not is_copy(copy)
    assert identify(copy, claim=True) == own
    root.rename(tmp_path / "renamed")
    assert not is_copy(tmp_path / "renamed")
    assert identify(tmp_path / "renamed", claim=True) == mark
    shutil.copytree(tmp_path / "renamed", tmp_path / "backup")
    shutil.rmtree(tmp_path / "renamed")
    shutil.copytree(tmp_path / "backup", tmp_path / "renamed")
    assert not is_copy(tmp_path / "renamed")


class Installation:
    """One replica's producer and one consumer, with an archive and a spool of their own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.archive, self.spool, self._url = folder / "archive", folder / "spool", url
        self.identity = identify(self.archive)
        self.notes: list[Note] = []
        self._producers: list[Producer] = []
        self._tasks: list[asyncio.Task[None]] = []

    def consume(self) -> None:
        consumer = Consumer(RedisStream(self._url), Archive(self.archive), [], QUICK, self.notes.append)
        self._tasks.append(asyncio.create_task(consumer.run()))

    def produce(self) -> Producer:
        producer = Producer(
            self.spool, None, SHIP, RedisStream(self._url), self.notes.append, archive=self.identity.archive
        )
        self._producers.append(producer)
        self._tasks.append(asyncio.create_task(producer.run()))
        return producer

    def archived(self) -> set[str]:
        events = [decode(line).event for line in read(self.archive)]
        return {event.event_id for event in events if isinstance(event, Served)}

    def refusals(self) -> list[str]:
        errors = [note.error for note in self.notes if isinstance(note, Disconnected)]
        return [error for error in errors if "--claim" in error]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for producer in self._producers:
            producer.close()


@pytest.fixture
async def two(tmp_path: Path, redis_server: Any) -> AsyncIterator[tuple[Installation, Installation]]:
    """Two installations on one Redis, with the same namespace by mistake; the first one was there first."""
    first, second = Installation(tmp_path / "1", redis_server.url), Installation(tmp_path / "2", redis_server.url)
    yield first, second
    await first.end()
    await second.end()


def offer(producer: Producer, *event_ids: str) -> None:
    for event_id in event_ids:
        producer.offer(sample_events.served(event_id=event_id))


async def test_two_installations_on_one_redis_do_not_mix(
    two: tuple[Installation, Installation], redis_server: Any, await_until: AwaitUntil
) -> None:
    """The second gets an error that names the owner, and leaves nothing there, before and after a FLUSHALL."""
    first, second = two
    first.consume()
    ours = first.produce()
    offer(ours, "first-event-1")
    await await_until(lambda: first.archived() == {"first-event-1"})
    assert archive_of_slot(first.spool / "0") == first.identity.archive
    with redis_server.client() as client:
        await await_until(lambda: client.xlen(f"recollect:events:{{{ours.producer_id}}}") == 0)
        theirs = second.produce()
        second.consume()
        offer(theirs, "second-event-1")
        await await_until(lambda: len(second.refusals()) == 2, what="both sides to be refused")
        assert all(first.identity.archive in refusal for refusal in second.refusals())
        assert client.zrange("recollect:producers", 0, -1) == [ours.producer_id.encode()]
        assert client.keys(f"*{theirs.producer_id}*") == []
        client.flushall()
        offer(ours, "first-event-2")
        await await_until(lambda: first.archived() == {"first-event-1", "first-event-2"})
        assert client.get("recollect:owner") == first.identity.archive.encode()
        assert client.keys(f"*{theirs.producer_id}*") == []
    assert second.archived() == set()
    assert theirs.counters.unarchived_events >= 1
    assert archive_of_slot(second.spool / "0") is None


async def test_producers_follow_when_a_namespace_is_claimed(
    two: tuple[Installation, Installation], redis_server: Any, await_until: AwaitUntil
) -> None:
    """The previous archive stops reading at once; its slots follow the new one, also after FLUSHALL."""
    first, second = two
    first.consume()
    ours = first.produce()
    offer(ours, "first-event-1")
    await await_until(lambda: first.archived() == {"first-event-1"})
    stream = RedisStream(redis_server.url)
    await stream.connect()
    there = await stream.read_mark()
    assert there is not None
    await stream.replace_mark(identify(second.archive, in_place_of=there))
    await stream.close()
    second.consume()
    await await_until(lambda: len(first.refusals()) == 1)
    offer(ours, "first-event-2")
    await await_until(lambda: "first-event-2" in second.archived())
    await await_until(lambda: archive_of_slot(first.spool / "0") == second.identity.archive)
    with redis_server.client() as client:
        client.flushall()
        await await_until(lambda: client.get("recollect:owner") is not None)
        assert client.get("recollect:owner") == f"{second.identity.archive} {first.identity.archive}".encode()
    assert "first-event-2" not in first.archived()


async def test_a_previous_owner_marks_the_namespace_again_when_the_other_mark_is_gone(
    two: tuple[Installation, Installation], redis_server: Any, await_until: AwaitUntil
) -> None:
    """A mark that was written by mistake and removed again stops no consumer for good; the events kept are archived."""
    first, _ = two
    first.consume()
    ours = first.produce()
    offer(ours, "first-event-1")
    await await_until(lambda: first.archived() == {"first-event-1"})
    with redis_server.client() as client:
        client.set("recollect:owner", "another-archive")
        await await_until(lambda: len(first.refusals()) == 2, what="both sides to be refused")
        offer(ours, "first-event-2")
        client.delete("recollect:owner")
    await await_until(lambda: first.archived() == {"first-event-1", "first-event-2"})


async def test_a_full_redis_has_no_room_for_a_mark(redis_server: Any) -> None:
    """That is no error: entries have to be read and trimmed before there is room again."""
    stream = RedisStream(redis_server.url)
    await stream.connect()
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        assert await stream.mark_if_unmarked(OwnerMark("a")) is None
        client.config_set("maxmemory", 0)
    assert await stream.mark_if_unmarked(OwnerMark("a")) == OwnerMark("a")
    assert await stream.mark_if_unmarked(OwnerMark("b")) == OwnerMark("a")
    await stream.replace_mark(OwnerMark("b", ("a",)))
    assert await stream.read_mark() == OwnerMark("b", ("a",))
    await stream.close()
