"""A producer in this process, on a real disk and a real Redis, without a consumer.

Invariant: after `settle` Redis has confirmed every event and the watermark covers it, so that the next measurement
begins with an empty write-ahead log.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from ops.benchmarks.telemetry.processor import until
from telemetry.batch import Position
from telemetry.producer import Producer
from telemetry.settings import ProducerSettings
from telemetry.stream.event_stream import publish_watermarks
from telemetry.stream.redis_stream import RedisStream

_SHIPPED_WITHIN_S: Final = 60.0


class Rig:
    """A producer with the default settings."""

    def __init__(self, producer: Producer, archive: RedisStream) -> None:
        self.producer = producer
        self._archive = archive

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, redis_url: str, spool: str) -> "AsyncIterator[Rig]":
        """Run a producer, with a spool in a directory that need not exist, during the context."""
        producer = Producer(Path(spool), 0, ProducerSettings(), RedisStream(redis_url))
        archive = RedisStream(redis_url)
        await archive.connect()
        work = asyncio.create_task(producer.run())
        try:
            yield cls(producer, archive)
        finally:
            work.cancel()
            await asyncio.wait([work])
            await archive.close()
            producer.close()

    @property
    def pending(self) -> int:
        """The accepted events that Redis has not confirmed."""
        return self._accepted - self.producer.counters.shipped

    async def shipped(self) -> None:
        """Wait until Redis has every event."""
        await until(lambda: not self.pending, _SHIPPED_WITHIN_S)

    async def settle(self) -> None:
        """Wait until Redis has every event, and publish the watermark that covers them."""
        await self.shipped()
        reached = Position(self.producer.epoch, self._accepted)
        await publish_watermarks(self._archive, {self.producer.producer_id: reached})

    @property
    def _accepted(self) -> int:
        counters = self.producer.counters
        return counters.served.accepted + counters.feedback.accepted + counters.system.accepted
