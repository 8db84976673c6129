"""A measured process: the processor time of a served event in a replica, in all threads.

Invariant: the time of the same loop that makes the same events and drops them is measured too, and subtracted.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from ops.benchmarks.measured_process import measured_main
from ops.benchmarks.telemetry import yardstick
from ops.benchmarks.telemetry.processor import US_PER_S, paced, spent, until
from ops.benchmarks.telemetry.rig import Rig
from ops.benchmarks.telemetry.sample import served
from telemetry.events import encode
from telemetry.ids import uuid7

# The ring buffer has room for these; a slow disk might drop more.
_OUTSTANDING: Final = 2_000
_TURN_EVENTS: Final = 50
_STUCK_S: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class CostTask:
    """Rates in events per second, each for `seconds`; the events of an unpaced loop; a directory on a real disk."""

    redis_url: str
    directory: str
    rates: tuple[float, ...]
    seconds: float
    events: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Microseconds of processor time per event, unless a name says otherwise.

    Attributes:
        line_bytes: The length of an event's line.
        encode_us: Encoding the line; part of every other figure.
        pipeline_us: Redis-py, one XADD for each event, 500 in a pipeline.
        batches_us: Redis-py, one XADD for 100 events.
        offer_us: `Producer.offer`: the request path.
        total_us: By rate: from `offer` to the reply of Redis.
        peak_us: The same unpaced, with at most 2,000 unconfirmed events.
        peak_per_s: Events per second then.
        dropped: Should be 0.
    """

    line_bytes: int
    encode_us: float
    pipeline_us: float
    batches_us: float
    offer_us: float
    total_us: dict[str, float]
    peak_us: float
    peak_per_s: float
    dropped: int


async def measure(task: CostTask) -> Cost:
    """Measure every figure once."""
    producer_id, events, url = uuid7(), task.events, task.redis_url

    def make_line(index: int) -> bytes:
        return encode(served(index), producer_id, 1, index + 1)

    async def write() -> None:
        for index in range(events):
            make_line(index)

    async def make() -> None:
        for index in range(events):
            served(index)

    made_s = await spent(make)
    encode_s = await spent(write) - made_s
    pipeline_s = await spent(lambda: yardstick.pipeline(url, make_line, events)) - made_s
    await yardstick.clear(url)
    batches_s = await spent(lambda: yardstick.batches(url, make_line, events)) - made_s
    await yardstick.clear(url)
    async with Rig.open(url, task.directory) as rig:
        offer_s = await _offer_s(rig, events)
        total_us = {f"{rate:g}": await _total_us(rig, rate, task.seconds) for rate in task.rates}
        begin_s = time.perf_counter()
        peak_s = await spent(lambda: _unpaced(rig, events)) - made_s
        took_s = time.perf_counter() - begin_s
        dropped = rig.producer.counters.served.dropped
    return Cost(
        line_bytes=len(make_line(0)),
        encode_us=encode_s / events * US_PER_S,
        pipeline_us=pipeline_s / events * US_PER_S,
        batches_us=batches_s / events * US_PER_S,
        offer_us=offer_s / events * US_PER_S,
        total_us=total_us,
        peak_us=peak_s / events * US_PER_S,
        peak_per_s=events / took_s,
        dropped=dropped,
    )


async def _offer_s(rig: Rig, events: int) -> float:
    """Return the processor time of the calls; commits and batches happen between them."""
    took_s = 0.0
    for first in range(0, events, _OUTSTANDING):
        made = [served(index) for index in range(first, min(first + _OUTSTANDING, events))]
        begin_s = time.thread_time()
        for event in made:
            rig.producer.offer(event)
        took_s += time.thread_time() - begin_s
        await rig.settle()
    return took_s


async def _total_us(rig: Rig, rate: float, seconds: float) -> float:
    offer = rig.producer.offer

    async def with_telemetry() -> None:
        await paced(rate, seconds, lambda index: offer(served(index)))
        await rig.shipped()

    without_s = await spent(lambda: paced(rate, seconds, served))
    took_s = await spent(with_telemetry) - without_s
    await rig.settle()
    return took_s / (rate * seconds) * US_PER_S


async def _unpaced(rig: Rig, events: int) -> None:
    """Offer without pauses, yielding between turns, and wait for the last reply."""
    for first in range(0, events, _TURN_EVENTS):
        # Checked once a turn, not once an event: a request does not check at all.
        if rig.pending > _OUTSTANDING - _TURN_EVENTS:
            await until(lambda: rig.pending <= _OUTSTANDING - _TURN_EVENTS, _STUCK_S)
        for index in range(first, min(first + _TURN_EVENTS, events)):
            rig.producer.offer(served(index))
        await asyncio.sleep(0)
    await rig.shipped()


if __name__ == "__main__":
    measured_main(CostTask, measure)
