import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from telemetry.archive import Archive
from telemetry.batch import Batch, to_fields
from telemetry.catalogue import Catalogue, Progress
from telemetry.consumer import Consumer
from telemetry.events import Feedback, Record, Served, decode, encode
from telemetry.memory import MemoryServer, MemoryStream
from telemetry.notes import ConsumerNote, LeaseLost, LeaseTaken, SinkFailed, StandingBy
from telemetry.producer import Producer
from telemetry.reading import read
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.sinks import CountingSink
from telemetry.stream import EventStream, RedisStream, events_key, watermark_key
from tests import made

AwaitUntil = Callable[..., Awaitable[None]]
QUICK = ConsumerSettings(
    discover_interval_s=0.05, block_ms=50, commit_interval_s=0.0, heartbeat_s=0.1, takeover_s=0.6, backoff_s=0.1
)
SHIP = ProducerSettings(check_interval_s=0.05, linger_s=0.001, batch_events=20)
ROOT = Path(__file__).parents[1]


def feedback(number: int, producer: str = "p") -> Feedback:
    return made.feedback(event_id=f"ev-{producer[:4]}-{number:08d}")


def served(number: int) -> Served:
    return made.served(event_id=f"sv-{number:08d}")


class Job:
    """A consumer in this process, running, with what it told and a counting sink."""

    def __init__(self, stream: EventStream, root: Path, *more_sinks: Any) -> None:
        self.notes: list[ConsumerNote] = []
        self.sink = CountingSink()
        self.consumer = Consumer(stream, Archive(root), [*more_sinks, self.sink], QUICK, self.notes.append)
        self.task = asyncio.create_task(self.consumer.run())

    def told(self, kind: type[ConsumerNote]) -> list[ConsumerNote]:
        return [note for note in self.notes if isinstance(note, kind)]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.task.cancelled()


class Site:
    """Producers, and consumers of one archive, on one Redis."""

    def __init__(self, home: Path, redis: Any) -> None:
        self.home = home
        self.archive = home / "archive"
        self.redis = redis
        self._running: list[tuple[Producer, asyncio.Task[None]]] = []
        self.jobs: list[Job] = []

    def producer(self) -> Producer:
        producer = Producer.open(self.home / "spool", None, SHIP, RedisStream(self.redis.url, timeout_s=0.5))
        self._running.append((producer, asyncio.create_task(producer.run())))
        return producer

    def consumer(self, *more_sinks: Any) -> Job:
        job = Job(RedisStream(self.redis.url, timeout_s=0.5), self.archive, *more_sinks)
        self.jobs.append(job)
        return job

    def archived(self) -> list[Record]:
        return [decode(line) for line in read(self.archive)]

    def archived_ids(self) -> list[str]:
        return [record.event.event_id for record in self.archived()]

    def account(self) -> dict[tuple[str, int], Progress]:
        catalogue = Catalogue(self.archive)
        try:
            return catalogue.progress()
        finally:
            catalogue.close()

    def add(self, producer: str, entry_id: str, fields: dict[bytes, bytes]) -> None:
        with self.redis.client() as client:
            client.zadd("recollect:producers", {producer: 1.0})
            client.xadd(events_key(producer), fields, id=entry_id)

    async def end(self) -> None:
        for job in self.jobs:
            if not job.task.done():
                await job.stop()
        for producer, task in self._running:
            await producer.drain(2)
            producer.close()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def site(tmp_path: Path, redis_server: Any) -> AsyncIterator[Site]:
    site = Site(tmp_path, redis_server)
    yield site
    await site.end()


async def test_events_of_several_producers_are_archived_once_and_released(site: Site, await_until: AwaitUntil) -> None:
    """The whole road: every event is in the archive, each producer's in order, and its buffer is free again."""
    producers = [site.producer(), site.producer()]
    job = site.consumer()
    for number in range(300):
        for producer in producers:
            producer.offer(served(number))
    await await_until(lambda: all(producer.counters.released == 300 for producer in producers))
    records = site.archived()
    for producer in producers:
        mine = [(record.epoch, record.seq) for record in records if record.producer == producer.producer_id]
        assert mine == [(1, seq) for seq in range(1, 301)]
        with site.redis.client() as client:
            assert client.xlen(events_key(producer.producer_id)) == 0
            assert client.xpending(events_key(producer.producer_id), "archive")["pending"] == 0
    await await_until(lambda: job.sink.counts == {"served": 600})
    assert (job.consumer.counters.archived, job.consumer.counters.sequence_holes) == (600, 0)


async def test_the_archive_keeps_the_producers_bytes(site: Site, await_until: AwaitUntil) -> None:
    """A line is archived as it was written, fields of a later version included."""
    line = encode(feedback(1), "p", 1, 1).replace(b'"position"', b'"later":true,"position"')
    site.add("p", "1-1", to_fields(Batch(1, 1, [line])))
    site.consumer()
    await await_until(lambda: list(read(site.archive)) == [line])


async def test_redis_loses_everything_and_nothing_is_lost_or_doubled(site: Site, await_until: AwaitUntil) -> None:
    """FLUSHALL in the middle of traffic, again and again, with both ends running."""
    producer = site.producer()
    site.consumer()
    for turn in range(6):
        for number in range(100):
            producer.offer(feedback(turn * 100 + number))
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        with site.redis.client() as client:
            client.flushall()
    await await_until(lambda: producer.counters.released == 600, timeout_s=20)
    assert site.archived_ids() == [feedback(number).event_id for number in range(600)]
    assert site.account() == {(producer.producer_id, 1): Progress(600, archived=600)}


async def test_redis_is_killed_under_traffic(site: Site, await_until: AwaitUntil) -> None:
    """SIGKILL and a restart on what its file kept: each event once."""
    producer = site.producer()
    job = site.consumer()
    for turn in range(3):
        for number in range(100):
            producer.offer(feedback(turn * 100 + number))
        await await_until(lambda: producer.counters.shipped > 0)
        site.redis.kill()
        for number in range(100):
            producer.offer(feedback(1000 + turn * 100 + number))
        site.redis.start()
    await await_until(lambda: producer.counters.released == 600, timeout_s=20)
    assert len(site.archived_ids()) == len(set(site.archived_ids())) == 600
    assert [record.seq for record in site.archived()] == list(range(1, 601))
    assert job.consumer.counters.sequence_holes == 0


async def test_feedback_that_came_twice_is_archived_once(site: Site, await_until: AwaitUntil) -> None:
    """A client that retried at another replica leaves one event, and the account says so."""
    one, two = site.producer(), site.producer()
    job = site.consumer()
    await one.accept([feedback(1), feedback(2)])
    await await_until(lambda: one.counters.released == 2)
    await two.accept([feedback(1), feedback(2), feedback(3)])
    two.offer(served(1))
    two.offer(served(1))
    await await_until(lambda: two.counters.released == 5)
    assert sorted(site.archived_ids()) == ["ev-p-00000001", "ev-p-00000002", "ev-p-00000003", *["sv-00000001"] * 2]
    assert site.account()[two.producer_id, 1] == Progress(5, archived=3, deduplicated=2)
    assert job.consumer.counters.deduplicated == 2


async def test_a_bad_entry_goes_to_the_dead_letters_and_blocks_nothing(site: Site, await_until: AwaitUntil) -> None:
    """Nonsense in the stream is kept aside with its reason, and what follows is archived."""
    lines = [encode(feedback(seq), "p", 1, seq) for seq in range(1, 4)]
    site.add("p", "1-1", to_fields(Batch(1, 1, lines[:1])))
    site.add("p", "1-2", {b"anything": b"else"})
    site.add("p", "1-3", to_fields(Batch(1, 3, lines[2:])))
    site.consumer()
    await await_until(lambda: list(read(site.archive)) == [lines[0], lines[2]])
    (letter,) = [orjson.loads(line) for line in read(site.archive, dead_letters=True)]
    assert (letter["entry_id"], letter["data"]) == ("1-2", "else")
    assert site.account() == {("p", 1): Progress(3, archived=2, dead_lettered=1)}


async def test_a_hole_is_archived_around_and_counted(site: Site, await_until: AwaitUntil) -> None:
    """Numbers that never come do not stop the others; the account names them as missing."""
    for first_seq in (1, 5):
        site.add(
            "p", f"1-{first_seq}", to_fields(Batch(1, first_seq, [encode(feedback(first_seq), "p", 1, first_seq)]))
        )
    job = site.consumer()
    await await_until(lambda: len(site.archived_ids()) == 2)
    assert site.account() == {("p", 1): Progress(5, archived=2, missing=3, holes=1)}
    await await_until(lambda: job.consumer.counters.sequence_holes == 1)


async def test_the_watermark_is_published_again_after_redis_lost_it(site: Site, await_until: AwaitUntil) -> None:
    """The catalogue knows; a producer that holds events gets them released after all."""
    producer = site.producer()
    site.consumer()
    producer.offer(served(1))
    await await_until(lambda: producer.counters.released == 1)
    with site.redis.client() as client:
        client.flushall()
    await await_until(lambda: _watermark(site, producer.producer_id) == {b"epoch": b"1", b"seq": b"1"})


def _watermark(site: Site, producer: str) -> Any:
    with site.redis.client() as client:
        return client.hgetall(watermark_key(producer))


async def test_what_a_dead_consumer_had_taken_is_archived_by_the_next_one(site: Site, await_until: AwaitUntil) -> None:
    """Entries delivered and not committed are pending; the successor reads them before anything new."""
    lines = [encode(feedback(seq), "p", 1, seq) for seq in range(1, 4)]
    site.add("p", "1-2", to_fields(Batch(1, 1, lines[:2])))
    zombie = RedisStream(site.redis.url)
    await zombie.connect()
    await zombie.join(["p"])
    assert await zombie.read(["p"], pending=False, max_entries=10, block_ms=10)
    site.add("p", "1-3", to_fields(Batch(1, 3, lines[2:])))
    site.consumer()
    await await_until(lambda: list(read(site.archive)) == lines)
    await zombie.close()


async def test_what_a_zombie_takes_while_we_run_is_found_again(site: Site, await_until: AwaitUntil) -> None:
    """A frozen predecessor wakes up and takes entries it can never commit: the jump in the numbers gives it away."""
    lines = [encode(served(seq), "p", epoch, seq) for epoch, seq in ((1, 1), (1, 2), (2, 1))]
    site.add("p", "1-1", to_fields(Batch(1, 1, lines[:1])))
    job = site.consumer()
    await await_until(lambda: list(read(site.archive)) == lines[:1])
    with site.redis.client() as client, client.pipeline(transaction=True) as both:
        # In one transaction, so that the running consumer cannot win.
        both.xadd(events_key("p"), dict(to_fields(Batch(1, 2, lines[1:2])).items()), id="1-2")
        both.xreadgroup("archive", "archive", {events_key("p"): ">"})
        assert both.execute()[1]
    site.add("p", "2-1", to_fields(Batch(2, 1, lines[2:])))
    await await_until(lambda: list(read(site.archive)) == lines)
    assert job.consumer.counters.sequence_holes == 0


class BrokenSink:
    name = "broken"

    async def take(self, records: Sequence[Record]) -> None:
        raise RuntimeError("no")


async def test_a_broken_sink_stops_nothing(site: Site, await_until: AwaitUntil) -> None:
    """It is told and counted; the archive and the other sinks go on."""
    producer = site.producer()
    job = site.consumer(BrokenSink())
    producer.offer(feedback(1))
    await await_until(lambda: job.sink.counts == {"click": 1})
    assert job.told(SinkFailed) == [SinkFailed("broken", "RuntimeError: no")]
    assert job.consumer.counters.sink_failures == 1


async def test_a_stopped_consumer_hands_over_at_once(site: Site, await_until: AwaitUntil) -> None:
    """The standby does not wait for the lease to run out, and goes on where the first one ended."""
    producer = site.producer()
    first = site.consumer()
    await await_until(lambda: first.told(LeaseTaken))
    second = site.consumer()
    await await_until(lambda: second.told(StandingBy))
    producer.offer(feedback(1))
    await await_until(lambda: producer.counters.released == 1)
    await first.stop()
    producer.offer(feedback(2))
    await await_until(lambda: producer.counters.released == 2)
    assert second.told(LeaseTaken) == [LeaseTaken(2)]
    assert site.archived_ids() == [feedback(1).event_id, feedback(2).event_id]


async def test_a_failing_disk_delays_and_loses_nothing(
    tmp_path: Path, await_until: AwaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While appends fail nothing is acknowledged; when they work again everything is archived once."""
    server = MemoryServer()
    writer = MemoryStream(server)
    await writer.connect()
    await writer.inspect("p", 1.0)
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


CONSUMER = """
import asyncio, os, signal, sys
from pathlib import Path
from telemetry.archive import Archive
from telemetry.consumer import Consumer
from telemetry.settings import ConsumerSettings
from telemetry.stream import RedisStream

url, root, fatal, after = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
left = after

def checkpoint(moment):
    global left
    if moment == fatal:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

quick = {"discover_interval_s": 0.05, "block_ms": 50, "commit_interval_s": 0.0, "takeover_s": 1.0, "read_entries": 1}
settings = ConsumerSettings(**quick)
asyncio.run(Consumer(RedisStream(url), Archive(root, checkpoint=checkpoint), [], settings).run())
"""


@pytest.mark.parametrize("moment", ["appended", "committed"])
async def test_kill_9_within_a_commit_neither_loses_nor_doubles(
    site: Site, await_until: AwaitUntil, moment: str
) -> None:
    """A consumer process dies between append and commit, or between commit and acknowledgement, three times over."""
    producer = site.producer()
    for number in range(200):
        producer.offer(feedback(number))
    for deadly_commit in (1, 2, 3):
        argv = [sys.executable, "-c", CONSUMER, site.redis.url, str(site.archive), moment, str(deadly_commit)]
        process = await asyncio.to_thread(subprocess.run, argv, cwd=ROOT, timeout=60)
        assert process.returncode == -signal.SIGKILL
    job = site.consumer()
    await await_until(lambda: producer.counters.released == 200, timeout_s=20)
    assert site.archived_ids() == [feedback(number).event_id for number in range(200)]
    assert site.account() == {(producer.producer_id, 1): Progress(200, archived=200)}
    assert not job.told(LeaseLost)


async def test_a_frozen_consumer_loses_the_lease_and_wakes_up_harmless(site: Site, await_until: AwaitUntil) -> None:
    """SIGSTOP, takeover by the standby, SIGCONT: one archive, each event once, and the zombie stands by."""
    producer = site.producer()
    argv = [sys.executable, "-c", CONSUMER, site.redis.url, str(site.archive), "never", "1"]
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT)
    try:
        for number in range(100):
            producer.offer(feedback(number))
        await await_until(lambda: producer.counters.released == 100)
        process.send_signal(signal.SIGSTOP)
        for number in range(100, 200):
            producer.offer(feedback(number))
        job = site.consumer()
        await await_until(lambda: producer.counters.released == 200, timeout_s=20)
        process.send_signal(signal.SIGCONT)
        for number in range(200, 300):
            producer.offer(feedback(number))
        await await_until(lambda: producer.counters.released == 300, timeout_s=20)
        assert site.archived_ids() == [feedback(number).event_id for number in range(300)]
        assert site.account() == {(producer.producer_id, 1): Progress(300, archived=300)}
        assert not job.told(LeaseLost)
    finally:
        process.kill()
        await process.wait()
