"""Processor time and paced calls for the measured processes."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ops.load.pacing import constant

US_PER_S: Final = 1e6
MS_PER_S: Final = 1e3
# Event loops round to whole milliseconds: a shorter sleep would spin.
_TICK_S: Final = 0.001


async def spent(work: Callable[[], Awaitable[object]]) -> float:
    """Return the seconds of processor time, in all threads of this process, during some work."""
    before_s = _processor_s()
    await work()
    return _processor_s() - before_s


async def paced(rate: float, duration_s: float, do: Callable[[int], object]) -> None:
    """Call `do` with 0, 1, … at `rate` per second; a late turn makes all due calls."""
    begin_s = time.perf_counter()
    for index, due_s in enumerate(constant(rate, duration_s)):
        wait_s = begin_s + due_s - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(max(wait_s, _TICK_S))
        do(index)


async def until(condition: Callable[[], bool], limit_s: float) -> None:
    """Poll a condition.

    Raises:
        TimeoutError: It was not true in time.
    """
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # no event signals it
            await asyncio.sleep(_TICK_S)


def _processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
