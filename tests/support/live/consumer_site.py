"""Producers, and consumers of one archive, on one Redis."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from telemetry.archive.archive import Archive
from telemetry.archive.archive_reader import read
from telemetry.archive.archive_snapshot import open_snapshot
from telemetry.catalogue.commit import Progress
from telemetry.consumer.consumer import Consumer
from telemetry.consumer.sinks import CountingSink
from telemetry.events import Feedback, Record, Served, decode
from telemetry.notes import Note
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.event_stream import EventStream
from telemetry.stream.key_names import KeyNames
from telemetry.stream.redis_stream import RedisStream
from tests.support import sample_events

QUICK = ConsumerSettings(
    discover_interval_s=0.05, block_ms=50, commit_interval_s=0.0, heartbeat_s=0.1, takeover_s=0.6, backoff_s=0.1
)
KEYS = KeyNames()
SHIP = ProducerSettings(check_interval_s=0.05, linger_s=0.001, batch_events=20)


def feedback(number: int, producer: str = "p") -> Feedback:
    return sample_events.feedback(event_id=f"ev-{producer[:4]}-{number:08d}")


def served(number: int) -> Served:
    return sample_events.served(event_id=f"sv-{number:08d}")


class Job:
    """A running consumer in this process, with its notes and a counting sink."""

    def __init__(self, stream: EventStream, root: Path, *more_sinks: Any, **more: Any) -> None:
        self.notes: list[Note] = []
        self.sink = CountingSink()
        self.consumer = Consumer(stream, Archive(root), [*more_sinks, self.sink], QUICK, self.notes.append, **more)
        self.task = asyncio.create_task(self.consumer.run())

    def noted(self, kind: type[Note]) -> list[Note]:
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
        producer = Producer(self.home / "spool", None, SHIP, RedisStream(self.redis.url, timeout_s=0.5))
        self._running.append((producer, asyncio.create_task(producer.run())))
        return producer

    def consumer(self, *more_sinks: Any, **more: Any) -> Job:
        job = Job(RedisStream(self.redis.url, timeout_s=0.5), self.archive, *more_sinks, **more)
        self.jobs.append(job)
        return job

    def archived(self) -> list[Record]:
        return [decode(line) for line in read(self.archive)]

    def archived_ids(self) -> list[str]:
        return [record.event.event_id for record in self.archived()]

    def account(self) -> dict[tuple[str, int], Progress]:
        with open_snapshot(self.archive) as archive:
            return dict(archive.progress)

    def add(self, producer: str, entry_id: str, fields: dict[bytes, bytes]) -> None:
        with self.redis.client() as client:
            client.zadd("recollect:producers", {producer: 1.0})
            client.xadd(KEYS.events(producer), fields, id=entry_id)

    async def resend(self, producer: str, entries: Mapping[str, dict[bytes, bytes]], until: Callable[[], bool]) -> None:
        """Make a handshake as a shipper does, and begin the stream anew if it is missing."""
        shakes = 1.0
        async with asyncio.timeout(20):
            while not until():
                with self.redis.client() as client:
                    shakes += 1
                    client.zadd("recollect:producers", {producer: shakes})
                    if not client.exists(KEYS.events(producer)):
                        with client.pipeline(transaction=True) as all_of_it:
                            for entry_id, fields in entries.items():
                                all_of_it.xadd(KEYS.events(producer), fields, id=entry_id)
                            all_of_it.execute()
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        for job in self.jobs:
            if not job.task.done():
                await job.stop()
        for producer, task in self._running:
            await producer.drain(2)
            producer.close()
            await asyncio.gather(task, return_exceptions=True)
