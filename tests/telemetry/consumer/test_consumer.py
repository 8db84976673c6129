import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from telemetry.archive.archive_reader import read
from telemetry.archive.dead_letters import read_letters
from telemetry.batch import Batch, Position, to_fields
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import CatalogueChange, CommitContent, Progress, SeenEvent
from telemetry.consumer.sinks import CommittedEvents
from telemetry.errors import StreamAwayError
from telemetry.events import Record, decode, encode
from telemetry.notes import LeaseTaken, SinkFailed, StandingBy
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.stream.redis_stream import RedisStream
from tests.support.live.consumer_site import KEYS, Job, Site, feedback, served

AwaitUntil = Callable[..., Awaitable[None]]


@pytest.fixture
async def site(tmp_path: Path, redis_server: Any) -> AsyncIterator[Site]:
    site = Site(tmp_path, redis_server)
    yield site
    await site.end()


async def test_events_of_several_producers_are_archived_once_and_released(site: Site, await_until: AwaitUntil) -> None:
    """Every event is in the archive, each producer's in order, and its buffer is free again."""
    producers = [site.producer(), site.producer()]
    job = site.consumer()
    for number in range(300):
        for producer in producers:
            producer.offer(served(number))
    await await_until(lambda: all(producer.archived.seq == 300 for producer in producers))
    records = site.archived()
    for producer in producers:
        mine = [(record.epoch, record.seq) for record in records if record.producer == producer.producer_id]
        assert mine == [(1, seq) for seq in range(1, 301)]
        with site.redis.client() as client:
            assert client.xlen(KEYS.events(producer.producer_id)) == 0
            assert client.xpending(KEYS.events(producer.producer_id), "archive")["pending"] == 0
    await await_until(lambda: job.sink.counts == {"served": 600})
    assert (job.consumer.counters.archived, job.consumer.counters.sequence_holes) == (600, 0)


async def test_the_archive_keeps_the_producers_bytes(site: Site, await_until: AwaitUntil) -> None:
    """A line is archived as it was written, fields of a later version included."""
    line = encode(feedback(1), "p", 1, 1).replace(b'"position"', b'"later":true,"position"')
    site.add("p", "1-1", to_fields(Batch(1, 1, [line])))
    site.consumer()
    await await_until(lambda: list(read(site.archive, stored=True)) == [line])


async def test_redis_loses_everything_and_nothing_is_lost_or_duplicated(site: Site, await_until: AwaitUntil) -> None:
    """FLUSHALL in the middle of traffic, again and again, with both ends running."""
    producer = site.producer()
    site.consumer()
    for turn in range(6):
        for number in range(100):
            await producer.accept([feedback(turn * 100 + number)])
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        with site.redis.client() as client:
            client.flushall()
    await await_until(lambda: producer.archived.seq == 600, timeout_s=20)
    assert site.archived_ids() == [feedback(number).event_id for number in range(600)]
    assert site.account() == {(producer.producer_id, 1): Progress(600, archived=600)}


async def test_redis_is_killed_under_traffic(site: Site, await_until: AwaitUntil) -> None:
    """SIGKILL and a restart on what its file kept: each event once."""
    producer = site.producer()
    job = site.consumer()
    for turn in range(3):
        for number in range(100):
            await producer.accept([feedback(turn * 100 + number)])
        await await_until(lambda: producer.counters.shipped > 0)
        site.redis.kill()
        for number in range(100):
            await producer.accept([feedback(1000 + turn * 100 + number)])
        site.redis.start()
    await await_until(lambda: producer.archived.seq == 600, timeout_s=20)
    assert len(site.archived_ids()) == len(set(site.archived_ids())) == 600
    assert [record.seq for record in site.archived()] == list(range(1, 601))
    assert job.consumer.counters.sequence_holes == 0


async def test_feedback_that_came_twice_is_archived_once(site: Site, await_until: AwaitUntil) -> None:
    """A client that retried at another replica leaves one event, and the counts show it."""
    one, two = site.producer(), site.producer()
    job = site.consumer()
    await one.accept([feedback(1), feedback(2)])
    await await_until(lambda: one.archived.seq == 2)
    await two.accept([feedback(1), feedback(2), feedback(3)])
    two.offer(served(1))
    two.offer(served(1))
    await await_until(lambda: two.archived.seq == 5)
    assert sorted(site.archived_ids()) == ["ev-p-00000001", "ev-p-00000002", "ev-p-00000003", *["sv-00000001"] * 2]
    assert site.account()[two.producer_id, 1] == Progress(5, archived=3, deduplicated=2)
    assert job.consumer.counters.deduplicated == 2


async def test_a_bad_entry_goes_to_the_dead_letters_and_blocks_nothing(site: Site, await_until: AwaitUntil) -> None:
    """Repeated nonsense is kept with its reason, and later events are archived."""
    lines = [encode(feedback(seq), "p", 1, seq) for seq in range(1, 4)]
    entries = {
        "1-1": to_fields(Batch(1, 1, lines[:1])),
        "1-2": {b"anything": b"else"},
        "1-3": to_fields(Batch(1, 3, lines[2:])),
    }
    site.consumer()
    await site.resend("p", entries, lambda: list(read(site.archive, stored=True)) == [lines[0], lines[2]])
    (letter,) = [orjson.loads(line) for line in read(site.archive, dead_letters=True)]
    assert (letter["entry_id"], letter["data"]) == ("1-2", "else")
    assert site.account() == {("p", 1): Progress(3, archived=2, dead_lettered=1)}


async def test_nonsense_in_a_stream_loses_no_event(site: Site, await_until: AwaitUntil) -> None:
    """A producer sends its events again, and they are archived."""
    producer = site.producer()
    job = site.consumer()
    producer.offer(served(1))
    await await_until(lambda: producer.archived.seq == 1)
    with site.redis.client() as client:
        client.xadd(KEYS.events(producer.producer_id), {b"anything": b"else"}, id="1-3")
    for number in range(2, 9):
        producer.offer(served(number))
    await await_until(lambda: len(site.archived_ids()) == 8)
    assert sorted(site.archived_ids()) == [f"sv-{number:08d}" for number in range(1, 9)]
    assert sum(progress.missing for progress in site.account().values()) == 0
    assert job.consumer.counters.sequence_holes == 0


@pytest.mark.parametrize("is_linked", [True, False])
async def test_a_hole_is_archived_around_and_counted(site: Site, await_until: AwaitUntil, is_linked: bool) -> None:
    """Numbers that never come do not stop the others; they are counted as missing."""
    entries = {
        f"1-{first_seq}": to_fields(
            Batch(1, first_seq, [encode(feedback(first_seq), "p", 1, first_seq)], Position(1, 0) if is_linked else None)
        )
        for first_seq in (1, 5)
    }
    job = site.consumer()
    # A batch of an older version names no predecessor; its producer is asked to send again, once.
    await site.resend("p", entries, lambda: len(site.archived_ids()) == 2)
    assert job.consumer.counters.gaps == (0 if is_linked else 1)
    assert site.account() == {("p", 1): Progress(5, archived=2, missing=3, holes=1)}
    await await_until(lambda: job.consumer.counters.sequence_holes == 1)


async def test_the_watermark_is_published_again_after_redis_lost_it(site: Site, await_until: AwaitUntil) -> None:
    """The catalogue has it; a producer that holds events releases them after all."""
    producer = site.producer()
    site.consumer()
    producer.offer(served(1))
    await await_until(lambda: producer.archived.seq == 1)
    with site.redis.client() as client:
        client.flushall()
    await await_until(lambda: _watermark(site, producer.producer_id) == [b"1", b"1"])


def _watermark(site: Site, producer: str) -> Any:
    with site.redis.client() as client:
        return client.hmget(KEYS.watermark(producer), "epoch", "seq")


async def test_entries_read_by_a_dead_consumer_are_archived_by_the_next_one(
    site: Site, await_until: AwaitUntil
) -> None:
    """Entries delivered and not committed are pending; the successor reads them before anything new."""
    lines = [encode(feedback(seq), "p", 1, seq) for seq in range(1, 4)]
    site.add("p", "1-2", to_fields(Batch(1, 1, lines[:2])))
    zombie = RedisStream(site.redis.url)
    await zombie.connect()
    await zombie.ensure_groups(["p"])
    assert await zombie.read(["p"], pending=False, max_entries=10, block_ms=10)
    site.add("p", "1-3", to_fields(Batch(1, 3, lines[2:])))
    site.consumer()
    await await_until(lambda: list(read(site.archive, stored=True)) == lines)
    await zombie.close()


async def test_entries_read_by_a_zombie_are_found_again(site: Site, await_until: AwaitUntil) -> None:
    """A frozen consumer wakes up and reads entries that it cannot commit: the jump in the numbers shows it."""
    lines = [encode(served(seq), "p", epoch, seq) for epoch, seq in ((1, 1), (1, 2), (2, 1))]
    site.add("p", "1-1", to_fields(Batch(1, 1, lines[:1])))
    job = site.consumer()
    await await_until(lambda: list(read(site.archive, stored=True)) == lines[:1])
    with site.redis.client() as client, client.pipeline(transaction=True) as both:
        # In one transaction, so that the running consumer cannot win.
        both.xadd(KEYS.events("p"), dict(to_fields(Batch(1, 2, lines[1:2])).items()), id="1-2")
        both.xreadgroup("archive", "archive", {KEYS.events("p"): ">"})
        assert both.execute()[1]
    site.add("p", "2-1", to_fields(Batch(2, 1, lines[2:], Position(1, 2))))
    await await_until(lambda: list(read(site.archive, stored=True)) == lines)
    assert job.consumer.counters.sequence_holes == 0


class BrokenSink:
    name = "broken"

    async def write(self, commit: CommittedEvents) -> None:
        raise RuntimeError("no")


async def test_a_broken_sink_stops_nothing(site: Site, await_until: AwaitUntil) -> None:
    """It is reported and counted; the archive and the other sinks continue."""
    producer = site.producer()
    job = site.consumer(BrokenSink())
    await producer.accept([feedback(1)])
    await await_until(lambda: job.sink.counts == {"click": 1})
    assert job.noted(SinkFailed) == [SinkFailed("broken", "RuntimeError: no")]
    assert job.consumer.counters.sink_failures == 1


async def test_a_stopped_consumer_hands_over_at_once(site: Site, await_until: AwaitUntil) -> None:
    """The standby does not wait for the lease to expire, and continues where the first one ended."""
    producer = site.producer()
    first = site.consumer()
    await await_until(lambda: first.noted(LeaseTaken))
    second = site.consumer()
    await await_until(lambda: second.noted(StandingBy))
    await producer.accept([feedback(1)])
    await await_until(lambda: producer.archived.seq == 1)
    await first.stop()
    await producer.accept([feedback(2)])
    await await_until(lambda: producer.archived.seq == 2)
    assert second.noted(LeaseTaken) == [LeaseTaken(2)]
    assert site.archived_ids() == [feedback(1).event_id, feedback(2).event_id]


async def test_a_failing_disk_delays_and_loses_nothing(
    tmp_path: Path, await_until: AwaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While appends fail nothing is acknowledged; when they work again everything is archived once."""
    server = MemoryServer()
    writer = MemoryStream(server)
    await writer.connect()
    await writer.handshake("p", 1.0)
    await writer.append("p", Batch(1, 1, [encode(feedback(1), "p", 1, 1)]), create=True)

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("os.fdatasync", fail)
        job = Job(MemoryStream(server), tmp_path)
        await await_until(lambda: "Input/output error" in (job.consumer.counters.last_error or ""))
        assert list(read(tmp_path)) == []
    await await_until(lambda: [decode(line).seq for line in read(tmp_path)] == [1])
    await job.stop()


async def test_a_failing_event_is_dead_lettered_after_three_tries_and_the_others_are_archived(
    site: Site, await_until: AwaitUntil
) -> None:
    """A failure of one event concerns that event alone."""
    asked = []

    def check(record: Record) -> None:
        asked.append(record.event.event_id)
        if record.event.event_id == feedback(2).event_id:
            raise ZeroDivisionError("oops")

    producer = site.producer()
    await producer.accept([feedback(number) for number in range(5)])
    site.consumer(check=check)
    await await_until(lambda: producer.archived.seq == 5)
    assert site.archived_ids() == [feedback(number).event_id for number in (0, 1, 3, 4)]
    (letter,) = read_letters(site.archive)
    assert (letter.reason, letter.tries, letter.seq) == ("ZeroDivisionError: oops", 3, 3)
    assert asked.count(feedback(2).event_id) == 3
    assert site.account() == {(producer.producer_id, 1): Progress(5, archived=4, dead_lettered=1)}


async def test_a_failing_event_among_inherited_ones_makes_no_hole(site: Site, await_until: AwaitUntil) -> None:
    """Entries read by a dead consumer wait behind the one whose event fails, and are all archived."""
    lines = [encode(served(seq), "p", 1, seq) for seq in range(1, 7)]
    for first_seq in (1, 3, 5):
        site.add("p", f"1-{first_seq + 1}", to_fields(Batch(1, first_seq, lines[first_seq - 1 : first_seq + 1])))
    dead = RedisStream(site.redis.url)
    await dead.connect()
    await dead.ensure_groups(["p"])
    assert await dead.read(["p"], pending=False, max_entries=10, block_ms=10)
    await dead.close()

    def check(record: Record) -> None:
        if record.seq == 2:
            raise ZeroDivisionError("oops")

    site.consumer(check=check)
    await await_until(lambda: len(site.archived()) == 5)
    assert list(read(site.archive, stored=True)) == [lines[0], *lines[2:]]
    assert site.account() == {("p", 1): Progress(6, archived=5, dead_lettered=1)}


async def test_drain_waits_for_everything_that_the_streams_hold(site: Site, await_until: AwaitUntil) -> None:
    """Streams that were begun a moment ago count; events in no stream do not."""
    job = site.consumer()
    await await_until(lambda: job.noted(LeaseTaken))
    assert await job.consumer.drain(5)
    lines = [encode(served(seq), "p", 1, seq) for seq in range(1, 2001)]
    for first_seq in range(1, 2001, 100):
        entry = to_fields(Batch(1, first_seq, lines[first_seq - 1 : first_seq + 99]))
        site.add("p", f"1-{first_seq + 99}", entry)
    assert await job.consumer.drain(20)
    assert list(read(site.archive, stored=True)) == lines
    with site.redis.client() as client:
        assert client.xlen(KEYS.events("p")) == 0


async def test_drain_ends_in_time_and_a_standby_has_nothing_to_drain(site: Site, await_until: AwaitUntil) -> None:
    """A frozen Redis does not extend the deadline."""
    job = site.consumer()
    standby = site.consumer()
    await await_until(lambda: job.noted(LeaseTaken) or standby.noted(LeaseTaken))
    active, idle = (job, standby) if job.noted(LeaseTaken) else (standby, job)
    assert await idle.consumer.drain(0)
    site.redis.pause()
    try:
        assert not await active.consumer.drain(0.2)
    finally:
        site.redis.resume()


class Clogged(MemoryStream):
    """A link that carries one entry in time and never two."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.asked: list[int] = []

    async def read(self, producers: Sequence[str], *, pending: bool, max_entries: int, block_ms: int) -> Any:
        self.asked.append(max_entries)
        deliveries = await super().read(producers, pending=pending, max_entries=max_entries, block_ms=block_ms)
        if sum(len(delivered.entries) for delivered in deliveries) > 1:
            await self.close()
            raise StreamAwayError("Redis did not answer within 2 s")
        return deliveries


async def test_reads_shrink_until_a_slow_link_answers(tmp_path: Path, await_until: AwaitUntil) -> None:
    """Reads that take too long are halved, down to one entry, and grow again once they succeed."""
    server = MemoryServer()
    writer = MemoryStream(server)
    await writer.connect()
    await writer.handshake("p", 1.0)
    for seq in range(1, 9):
        await writer.append("p", Batch(1, seq, [encode(served(seq), "p", 1, seq)]), create=True)
    stream = Clogged(server)
    job = Job(stream, tmp_path)
    await await_until(lambda: [decode(line).seq for line in read(tmp_path)] == list(range(1, 9)), timeout_s=20)
    first_success = stream.asked.index(1)
    # The first read finds nothing that was pending.
    assert stream.asked[1 : first_success + 1] == [16, 8, 4, 2, 1]
    assert stream.asked[first_success + 1] == 2
    await job.stop()


async def test_old_event_ids_expire_while_events_are_archived(tmp_path: Path, await_until: AwaitUntil) -> None:
    """All of them, and no younger ones; an expired id may come again."""
    with closing(Catalogue(tmp_path)) as catalogue:
        lease = catalogue.lease.acquire(catalogue.lease.read(), "before", "here", locked=False)
        assert lease is not None
        old = [("default", f"old-{number}") for number in range(12_000)]
        catalogue.commit(
            lease.epoch, CatalogueChange(added=CommitContent(seen=[SeenEvent(*key, b"") for key in old]), now_s=100)
        )
        catalogue.store_clock(lease.epoch, 100 + 8 * 86_400)
        catalogue.lease.release(lease.epoch)
        server = MemoryServer()
        writer = MemoryStream(server)
        await writer.connect()
        await writer.handshake("p", 1.0)
        job = Job(MemoryStream(server), tmp_path)
        await writer.append("p", Batch(1, 1, [encode(feedback(1), "p", 1, 1)]), create=True)
        young = ("default", feedback(1).event_id)
        await await_until(lambda: set(catalogue.seen_fingerprints([young])) == {young})
        await await_until(lambda: not catalogue.seen_fingerprints(old))
        assert set(catalogue.seen_fingerprints([young])) == {young}
        await job.stop()
