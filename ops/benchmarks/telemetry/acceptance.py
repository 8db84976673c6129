"""A measured process: the time of `Producer.accept`, from the call until the event is on the disk.

Invariant: an open loop with one event per request.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass

from ops.benchmarks.measured_process import measured_main
from ops.benchmarks.telemetry.processor import MS_PER_S, paced
from ops.benchmarks.telemetry.rig import Rig
from ops.benchmarks.telemetry.sample import click
from telemetry.errors import EventsRefusedError


@dataclass(frozen=True, kw_only=True)
class AcceptanceTask:
    """Requests per second, each rate for `seconds`."""

    redis_url: str
    directory: str
    rates: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AcceptanceTimes:
    """Milliseconds of accepted requests by rate, and the number of refused ones."""

    p50_ms: dict[str, float]
    p99_ms: dict[str, float]
    refused: int


async def measure(task: AcceptanceTask) -> AcceptanceTimes:
    """Measure every rate once."""
    p50_ms, p99_ms, refused = {}, {}, 0
    async with Rig.open(task.redis_url, task.directory) as rig:
        for rate in task.rates:
            took_s = [one for one in await _accept(rig, rate, task.seconds) if one is not None]
            refused += round(rate * task.seconds) - len(took_s)
            cuts = statistics.quantiles(took_s, n=100, method="inclusive")
            p50_ms[f"{rate:g}"] = cuts[49] * MS_PER_S
            p99_ms[f"{rate:g}"] = cuts[98] * MS_PER_S
            await rig.settle()
    return AcceptanceTimes(p50_ms=p50_ms, p99_ms=p99_ms, refused=refused)


async def _accept(rig: Rig, rate: float, seconds: float) -> list[float | None]:
    """Return the seconds of each request; None for a refused one."""

    async def one(index: int) -> float | None:
        event = click(index)
        begin_s = time.perf_counter()
        try:
            await rig.producer.accept([event])
        except EventsRefusedError:
            return None
        return time.perf_counter() - begin_s

    tasks: list[asyncio.Task[float | None]] = []
    await paced(rate, seconds, lambda index: tasks.append(asyncio.create_task(one(index))))
    return list(await asyncio.gather(*tasks))


if __name__ == "__main__":
    measured_main(AcceptanceTask, measure)
