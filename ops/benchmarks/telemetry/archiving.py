"""A measured process: the rate at which the consumer archives, in events per second of its processor time.

Invariant: the stream is full before the clock starts, with batches as long as a busy producer's; the clock stops when
the catalogue on the disk has all of them.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.benchmarks.measured_process import measured_main
from ops.benchmarks.telemetry import yardstick
from ops.benchmarks.telemetry.processor import spent, until
from ops.benchmarks.telemetry.sample import served
from telemetry.archive.archive import Archive
from telemetry.batch import Batch
from telemetry.consumer.consumer import Consumer
from telemetry.consumer.sinks import CountingSink
from telemetry.events import encode
from telemetry.ids import uuid7
from telemetry.settings import ConsumerSettings
from telemetry.stream.redis_stream import RedisStream

_BATCH_EVENTS: Final = 140
_ARCHIVED_WITHIN_S: Final = 120.0


@dataclass(frozen=True, kw_only=True)
class ArchivingTask:
    """The number of events to archive from a Redis into a new archive."""

    redis_url: str
    directory: str
    events: int


@dataclass(frozen=True, kw_only=True)
class Archiving:
    """Events per second of processor time: archived by the consumer, and only counted by redis-py."""

    archived_per_s: float
    counted_per_s: float


async def measure(task: ArchivingTask) -> Archiving:
    """Fill and drain one stream with redis-py, and one with the consumer."""
    producer = uuid7()
    lines = [encode(served(seq), producer, 1, seq) for seq in range(1, task.events + 1)]
    await yardstick.pipeline(task.redis_url, lines.__getitem__, task.events)
    counting_s = await spent(lambda: yardstick.count(task.redis_url))
    await yardstick.clear(task.redis_url)
    # The namespace of an earlier round belongs to that round's archive.
    namespace = f"benchmark-{producer}"
    await _fill(RedisStream(task.redis_url, namespace), producer, lines)
    consumer = Consumer(
        RedisStream(task.redis_url, namespace), Archive(Path(task.directory)), [CountingSink()], ConsumerSettings()
    )
    work = asyncio.create_task(consumer.run())
    try:
        archiving_s = await spent(
            lambda: until(lambda: work.done() or consumer.counters.archived >= task.events, _ARCHIVED_WITHIN_S)
        )
    finally:
        work.cancel()
        await asyncio.wait([work])
    return Archiving(archived_per_s=task.events / archiving_s, counted_per_s=task.events / counting_s)


async def _fill(stream: RedisStream, producer: str, lines: list[bytes]) -> None:
    await stream.connect()
    try:
        # The consumer reads the streams of producers that did a handshake.
        await stream.handshake(producer, 0.0)
        for first in range(0, len(lines), _BATCH_EVENTS):
            await stream.append(producer, Batch(1, first + 1, lines[first : first + _BATCH_EVENTS]), create=True)
    finally:
        await stream.close()


if __name__ == "__main__":
    measured_main(ArchivingTask, measure)
