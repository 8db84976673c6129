"""The write-ahead log on a disk that loses what was not synced, with the process and the power failing anywhere.

The short version takes some seconds. The long one stops the process at more than ten thousand places:

    RECOLLECT_TEST_LONG=1 pytest -q --no-cov tests/telemetry/wal/test_spool_properties.py
"""

import errno
import os
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from telemetry.batch import Position
from tests.support.spools.spool_world import World

LONG = bool(os.environ.get("RECOLLECT_TEST_LONG"))

REFUSED = [
    ["write"],
    ["sync"],
    ["create"],
    ["directory"],
    ["unlink"],
    ["replace"],
    ["create", "write"],
    ["sync", "write"],
]


class Machine(RuleBasedStateMachine):
    """Every action of the spool and every failure of its disk, in any order."""

    world: World

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.world = World(seed)

    @rule(count=st.integers(1, 12), size_bytes=st.sampled_from([1, 200, 3000]))
    def append(self, count: int, size_bytes: int) -> None:
        self.world.append(count, size_bytes)

    @rule(count=st.integers(1, 5), size_bytes=st.sampled_from([1, 700]), commit=st.booleans())
    def accept(self, count: int, size_bytes: int, commit: bool) -> None:
        self.world.accept(count, size_bytes, commit=commit)

    @rule()
    def commit(self) -> None:
        self.world.commit()

    @rule()
    def rotate(self) -> None:
        self.world.rotate()

    @rule(count=st.integers(1, 8))
    def ship(self, count: int) -> None:
        self.world.ship(count)

    @rule()
    def archive(self) -> None:
        self.world.archive()

    @rule()
    def lose_stream(self) -> None:
        self.world.lose_stream()

    @rule(new_producer=st.booleans())
    def renumber(self, new_producer: bool) -> None:
        self.world.renumber(new_producer=new_producer)

    @rule(kinds=st.sampled_from(REFUSED), number=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def fail(self, kinds: list[str], number: int) -> None:
        self.world.fail(kinds, number)

    @rule()
    def recover(self) -> None:
        self.world.recover()

    @rule()
    def write_back(self) -> None:
        self.world.write_back()

    @rule(moments=st.integers(1, 30))
    def crash_in(self, moments: int) -> None:
        self.world.crash_in(moments)

    @rule(power_cut=st.booleans())
    def stop(self, power_cut: bool) -> None:
        self.world.stop(power_cut=power_cut)

    @invariant()
    def check(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world") and self.world.spool is not None:
            self.world.finish()


def test_frames_of_a_failed_sync_are_not_taken_for_durable() -> None:
    """A process is killed after its disk refused; the next one writes the frames again before the power fails."""
    for seed in range(20):
        world = World(seed)
        world.append(4, 200)
        world.commit()
        world.append(4, 200)
        world.fail(["sync"], errno.EIO)
        world.commit()
        world.recover()
        world.stop(power_cut=False)
        world.check()
        world.stop(power_cut=True)
        world.check()
        world.finish()


def test_events_carried_into_a_new_epoch_do_not_come_back_in_the_old_one() -> None:
    """A start on a failing disk gives other numbers to the ring's events; then the power fails."""
    for seed in range(20):
        world = World(seed)
        world.stops_recovery = 0.0
        world.append(6, 200)

        def hit(name: str, world: World = world) -> None:
            if name == "spool.written":
                world.fail(["sync"], errno.EIO)

        world.hit = hit
        world.stop(power_cut=False)
        world.hit = lambda _name: None
        world.recover()
        assert world.open.last_appended == Position(2, 6)
        world.write_back()
        world.stop(power_cut=True)
        world.check()
        world.finish()


def test_segments_that_a_renumbering_could_not_remove_do_not_come_back_after_the_next() -> None:
    """Two changes of identity while the disk refuses to remove anything."""
    world = World(0)
    world.append(1, 1)
    world.fail(["unlink"], errno.EIO)
    world.renumber(new_producer=False)
    world.check()
    world.ship(1)
    world.renumber(new_producer=True)
    world.recover()
    world.stop(power_cut=False)
    world.check()
    world.finish()


# Random histories reach further than the search for small examples below, which explains a failure better.
STEPS: list[tuple[int, Callable[[World, Random], None]]] = [
    (5, lambda world, rng: world.append(rng.randint(1, 12), rng.choice([1, 200, 3000]))),
    (3, lambda world, rng: world.accept(rng.randint(1, 5), rng.choice([1, 700]), commit=rng.random() < 0.5)),
    (4, lambda world, _: world.commit()),
    (1, lambda world, _: world.rotate()),
    (2, lambda world, rng: world.ship(rng.randint(1, 8))),
    (2, lambda world, _: world.archive()),
    (1, lambda world, _: world.lose_stream()),
    (1, lambda world, rng: world.renumber(new_producer=rng.random() < 0.5)),
    (1, lambda world, rng: world.fail(rng.choice(REFUSED), rng.choice([errno.EIO, errno.ENOSPC]))),
    (2, lambda world, _: world.recover()),
    (1, lambda world, _: world.write_back()),
    (2, lambda world, rng: world.crash_in(rng.randint(1, 30))),
    (1, lambda world, rng: world.stop(power_cut=rng.random() < 0.5)),
]


@pytest.mark.timeout(3000)
def test_no_history_loses_an_acknowledged_event() -> None:
    """After every step of random histories every invariant holds."""
    weights, steps = zip(*STEPS, strict=True)
    for seed in range(10_000 if LONG else 200):
        rng = Random(seed)
        world = World(seed)
        for step in rng.choices(steps, weights, k=30):
            step(world, rng)
            world.check()
        world.finish()


# Every action once or more.
LIFE: list[Callable[[World], None]] = [
    lambda world: world.append(5, 200),
    lambda world: world.accept(2, 1, commit=True),
    World.rotate,
    lambda world: world.append(3, 3000),
    World.commit,
    lambda world: world.ship(2),
    World.archive,
    lambda world: world.append(2, 1),
    lambda world: world.stop(power_cut=False),
    lambda world: world.append(2, 1),
    World.commit,
    lambda world: world.ship(2),
    lambda world: world.renumber(new_producer=False),
    lambda world: world.append(4, 200),
    lambda world: world.accept(3, 1, commit=False),
    lambda world: world.fail(["sync"], errno.EIO),
    World.commit,
    lambda world: world.append(1, 1),
    World.recover,
    World.commit,
    lambda world: world.stop(power_cut=True),
    lambda world: world.append(3, 200),
    lambda world: world.renumber(new_producer=True),
    lambda world: world.accept(1, 700, commit=True),
    lambda world: world.ship(9),
    World.archive,
]


def live(world: World) -> None:
    for step in LIFE:
        step(world)
        world.check()
    world.finish()


@pytest.mark.timeout(3000)
def test_a_crash_at_any_disk_operation_loses_nothing() -> None:
    """The process or the power stops at one disk operation after another; no acknowledged event is lost."""
    world = World(0)
    live(world)
    moments = world.moments
    crashes = 0
    for seed in range(40 if LONG else 1):
        for moment in range(1, moments, 1 if LONG else 5):
            world = World(seed * 1000 + moment)
            world.crash_in(moment)
            live(world)
            crashes += world.crashes
    assert crashes > (10_000 if LONG else moments / 10)


TestMachine = pytest.mark.timeout(3000 if LONG else 120)(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=1000 if LONG else 40,
    stateful_step_count=40 if LONG else 25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
