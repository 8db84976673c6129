"""How fast the consumer archives: the program of the measured process.

The invariant: the stream is full before the clock starts and holds batches as long as a busy producer's, and the clock
stops when the archive's catalogue has all of them, on the disk. What is measured is this process's processor time, so
the rate is that of one core that does nothing else.

Run as `python -m ops.benchmarks.telemetry.archiving`; see `ops.benchmarks.measured_process`.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.benchmarks.measured_process import answer
from ops.benchmarks.telemetry import yardstick
from ops.benchmarks.telemetry.cpu_clock import spent, until
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
    """What to measure: so many events from this Redis into a new archive."""

    redis_url: str
    directory: str
    events: int


@dataclass(frozen=True, kw_only=True)
class Archiving:
    """Events per second of one core's time.

    Attributes:
        archived_per_s: The consumer, into an archive.
        counted_per_s: Redis-py's XREADGROUP and XACK, one event an entry, which are counted and not kept.
    """

    archived_per_s: float
    counted_per_s: float


async def measure(task: ArchivingTask) -> Archiving:
    """Fill a stream twice and empty it twice.

    Args:
        task: what.

    Returns:
        Both rates.
    """
    producer = uuid7()
    lines = [encode(served(seq), producer, 1, seq) for seq in range(1, task.events + 1)]
    await yardstick.pipeline(task.redis_url, lines.__getitem__, task.events)
    counting_s = await spent(lambda: yardstick.count(task.redis_url))
    await yardstick.clear(task.redis_url)
    # A place of its own: the one of a round before belongs to that round's archive.
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
        # The consumer knows the producers that announced themselves.
        await stream.handshake(producer, 0.0)
        for first in range(0, len(lines), _BATCH_EVENTS):
            await stream.append(producer, Batch(1, first + 1, lines[first : first + _BATCH_EVENTS]), create=True)
    finally:
        await stream.close()


if __name__ == "__main__":
    answer(ArchivingTask, measure)
