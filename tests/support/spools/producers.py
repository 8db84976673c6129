"""Producers with a small budget, their events, and a failpoint that holds or fails the disk."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from telemetry.batch import from_entry
from telemetry.events import Feedback, Served
from telemetry.producer import Producer
from telemetry.settings import ProducerSettings
from telemetry.stream.memory_stream import MemoryServer
from tests.support import sample_events

SMALL = ProducerSettings(
    spool_bytes=60_000, ring_bytes=64 * 1024, check_interval_s=0.01, linger_s=0.0, commit_interval_s=0.001
)


def served(text: str = "42") -> Served:
    return sample_events.served(user_id=text)


def feedback(text: str = "42") -> Feedback:
    return sample_events.feedback(user_id=text)


@asynccontextmanager
async def running(producer: Producer) -> AsyncIterator[None]:
    run = asyncio.create_task(producer.run())
    try:
        yield
    finally:
        run.cancel()
        await asyncio.wait([run])


def lines_in(server: MemoryServer, producer: str) -> list[bytes]:
    return [line for entry in server.streams[producer].entries.values() for line in from_entry(entry).lines]


def assert_sums(producer: Producer) -> None:
    counters = producer.counters
    classes = [counters.served, counters.feedback, counters.system]
    for one in classes:
        assert one.offered == one.accepted + one.refused + one.dropped
    taken = counters.recovered + sum(one.accepted for one in classes)
    assert taken == counters.released + counters.relinquished + counters.spooled_events


class Gate:
    """A failpoint that holds or fails the thread that writes, between the write and its fdatasync."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.fails = False
        self.synced = 0
        self.reached = 0

    def __call__(self, name: str) -> None:
        if name == "spool.written":
            self.reached += 1
            self.open.wait(30)
            if self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced += name == "spool.synced"
