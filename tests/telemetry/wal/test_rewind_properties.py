"""Shipping from the write-ahead log to the archive, through a Redis that loses data at random.

The short version takes some seconds; the long one runs thousands of histories:

    RECOLLECT_TEST_LONG=1 pytest -q --no-cov tests/telemetry/wal/test_rewind_properties.py
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from telemetry.batch import Entry, Position
from telemetry.counters import ProducerCounters
from telemetry.errors import SpoolError, StreamError
from telemetry.events import encode
from telemetry.settings import ProducerSettings
from telemetry.shipper import Shipper
from telemetry.wal.slot import Slot
from telemetry.wal.spool import Spool
from tests.support import sample_events
from tests.support.spools.killed_spool import kill
from tests.support.spools.lossy_stream import Archive, LossyServer, UnreliableConnection
from tests.support.spools.shadow_disk import ShadowDisk

LONG = bool(os.environ.get("RECOLLECT_TEST_LONG"))
DIRECTORY = Path("/spool/0")
SETTINGS = ProducerSettings(
    spool_bytes=1024 * 1024, ring_bytes=64 * 1024, batch_events=3, batch_bytes=2000, segment_age_s=0.0
)

_T = TypeVar("_T")


class Machine(RuleBasedStateMachine):
    """A producer, a Redis and an archive, with the faults of each as rules."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = LossyServer()
        self.archive = Archive(self.server)
        self.disk = ShadowDisk(Random(seed))
        self.disk.make_directory(DIRECTORY)
        self.ids: list[str] = []
        self.start()

    def start(self) -> None:
        self.spool = Spool(Slot(0, DIRECTORY, os.open(os.devnull, os.O_RDONLY), self.disk), SETTINGS, self.disk)
        self.stream = UnreliableConnection(self.server)
        self.counters = ProducerCounters()
        self.shipper = Shipper(self.spool, self.stream, SETTINGS, self.counters, None, lambda: None)
        self.connected = False

    def do(self, work: Awaitable[_T]) -> _T:
        async def run() -> _T:
            return await work

        return self.loop.run_until_complete(run())

    @rule(count=st.integers(1, 8), commits=st.booleans())
    def append(self, count: int, commits: bool) -> None:
        async def act() -> None:
            for _ in range(count):
                self.ids.append(f"ev-{len(self.ids):08d}")
                event = sample_events.served(event_id=self.ids[-1])
                self.spool.append(encode(event, self.spool.producer_id, self.spool.epoch, self.spool.next_seq))
            if commits:
                await self.spool.commit()

        self.do(act())

    @rule(steps=st.integers(1, 6), asks=st.sampled_from([False, False, True]))
    def ship(self, steps: int, asks: bool) -> None:
        async def act() -> None:
            try:
                if not self.connected:
                    await self.shipper._connect()
                    self.connected = True
                elif asks:
                    await self.shipper._handshake()
                for _ in range(steps):
                    if self.shipper._cursor < self.spool.durable:
                        await self.shipper._send_batch()
            except (StreamError, SpoolError) as error:
                self.shipper._disconnected(error)
                self.connected = False

        self.do(act())

    @rule(max_entries=st.integers(1, 4), dies=st.sampled_from([None, None, "before", "after"]))
    def consume(self, max_entries: int, dies: str | None) -> None:
        self.do(self.archive.turn(max_entries=max_entries, dies=dies))

    @rule()
    def restart_consumer(self) -> None:
        self.archive.restart()

    @rule()
    def kill_producer(self) -> None:
        self.disk.stop()
        self.end_process()
        self.disk = self.disk.after_kill(Random(1))
        self.start()

    @rule()
    def flush_all(self) -> None:
        self.server.flush_all()

    @rule(count=st.integers(1, 5))
    def lose_last(self, count: int) -> None:
        self.server.lose_last(count)

    @rule(seed=st.integers(0, 2**32), share=st.sampled_from([0.2, 0.5, 1.0]))
    def lose(self, seed: int, share: float) -> None:
        self.server.lose(Random(seed), share)

    @rule(seed=st.integers(0, 2**32))
    def append_foreign(self, seed: int) -> None:
        """Append foreign entries, within the producer's numbers or out of range."""
        rng = Random(seed)
        for log in self.server.streams.values():
            at = rng.choice([Position(log.last.epoch, log.last.seq + rng.randint(1, 4)), Position(2**60, 1)])
            if at > log.last and (at <= self.spool.last_appended or not at.in_range):
                log.last = at
                log.entries[at] = Entry(str(at), {b"anything": b"else"})

    @rule()
    def raise_last_ids(self) -> None:
        """Raise the last id of each stream to the producer's position, without the entries."""
        for log in self.server.streams.values():
            log.last = max(log.last, self.spool.last_appended)

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.server.full = full

    @rule()
    def save(self) -> None:
        self.server.save()

    @rule(which=st.integers(0, 3))
    def restore(self, which: int) -> None:
        self.server.restore(which)

    @rule()
    def lose_watermarks(self) -> None:
        self.server.watermarks.clear()

    @rule()
    def forge(self) -> None:
        self.server.forged = set(self.server.announced)

    @rule(share=st.floats(0, 1))
    def set_back(self, share: float) -> None:
        """Replace watermarks by older ones."""
        for name, mark in self.server.watermarks.items():
            self.server.watermarks[name] = Position(mark.epoch, int(share * mark.seq))

    @rule()
    def rename(self) -> None:
        self.server.streams.clear()

    @rule(fault=st.sampled_from(["refused", "broken", "reply lost"]))
    def break_next(self, fault: str) -> None:
        self.stream.fault = fault

    @precondition(lambda self: self.server.reachable)
    @rule()
    def go_away(self) -> None:
        self.server.reachable = False

    @precondition(lambda self: not self.server.reachable)
    @rule()
    def come_back(self) -> None:
        self.server.reachable = True

    @invariant()
    def no_identity_conflict_was_seen(self) -> None:
        if hasattr(self, "counters"):
            assert self.counters.identity_changes == 0

    def end_process(self) -> None:
        kill(self.spool)

    def teardown(self) -> None:
        """Let everything work again: then each event is archived once."""
        if not hasattr(self, "loop"):
            return
        self.server.reachable = True
        self.server.full = False
        self.stream.fault = None
        self.do(self.spool.commit())
        for _ in range(200):
            self.ship(20, asks=True)
            while self.do(self.archive.turn(max_entries=16)):
                pass
            if not self.spool.held:
                break
        assert sorted(self.archive.ids) == self.ids
        assert self.spool.held == 0
        self.end_process()
        self.loop.close()


# Random histories reach further than the search for small examples below, which explains a failure better.
STEPS: list[tuple[int, Callable[[Machine, Random], None]]] = [
    (5, lambda one, rng: one.append(rng.randint(1, 8), rng.random() < 0.7)),
    (6, lambda one, rng: one.ship(rng.randint(1, 6), rng.random() < 0.3)),
    (6, lambda one, rng: one.consume(rng.randint(1, 4), rng.choice([None, None, None, "before", "after"]))),
    (1, lambda one, _: one.restart_consumer()),
    (1, lambda one, _: one.kill_producer()),
    (1, lambda one, _: one.flush_all()),
    (1, lambda one, rng: one.lose_last(rng.randint(1, 5))),
    (3, lambda one, rng: one.lose(rng.randint(0, 2**32), rng.choice([0.2, 0.5, 1.0]))),
    (1, lambda one, _: one.raise_last_ids()),
    (1, lambda one, rng: one.append_foreign(rng.randint(0, 2**32))),
    (1, lambda one, rng: one.fill(rng.random() < 0.4)),
    (1, lambda one, _: one.save()),
    (1, lambda one, rng: one.restore(rng.randint(0, 3))),
    (1, lambda one, _: one.lose_watermarks()),
    (1, lambda one, _: one.forge()),
    (1, lambda one, rng: one.set_back(rng.random())),
    (1, lambda one, _: one.rename()),
    (2, lambda one, rng: one.break_next(rng.choice(["refused", "broken", "reply lost"]))),
    (1, lambda one, _: one.go_away()),
    (2, lambda one, _: one.come_back()),
]


@pytest.mark.timeout(3000)
def test_no_history_loses_or_duplicates_an_event() -> None:
    """At the end of random histories every event is archived once."""
    weights, steps = zip(*STEPS, strict=True)
    for seed in range(20_000 if LONG else 300):
        rng = Random(seed)
        one = Machine()
        one.begin(seed)
        for step in rng.choices(steps, weights, k=40):
            step(one, rng)
            one.no_identity_conflict_was_seen()
        one.teardown()


TestMachine = pytest.mark.timeout(3000 if LONG else 120)(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=1000 if LONG else 60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
