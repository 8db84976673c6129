"""Processor time, and keeping a pace, for the measured processes."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ops.load.pacing import constant

US_PER_S: Final = 1e6
MS_PER_S: Final = 1e3
# Event loops keep time in whole milliseconds: a shorter sleep would spin.
_TICK_S: Final = 0.001


async def spent(work: Callable[[], Awaitable[object]]) -> float:
    """Return the processor time in seconds that this process, all of its threads, took for a piece of work."""
    before_s = _processor_s()
    await work()
    return _processor_s() - before_s


async def paced(rate: float, duration_s: float, do: Callable[[int], object]) -> None:
    """Call `do` with 0, 1, … at even times; a turn that comes late does all that is due.

    Args:
        rate: Calls per second.
        duration_s: How long.
        do: Called without waiting for anything.
    """
    begin_s = time.perf_counter()
    for index, due_s in enumerate(constant(rate, duration_s)):
        wait_s = begin_s + due_s - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(max(wait_s, _TICK_S))
        do(index)


async def until(condition: Callable[[], bool], limit_s: float) -> None:
    """Wait for something that no event tells of.

    Raises:
        TimeoutError: It did not come true in time.
    """
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(_TICK_S)


def _processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
