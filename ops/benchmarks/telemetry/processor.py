"""Processor time and paced calls of the measured processes, and a core that does not sleep."""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from ops.console.foreground import parent_death_hook
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


@contextlib.contextmanager
def awake(core: int) -> Iterator[None]:
    """Keep a core busy with a process of the lowest priority.

    On an idle core a process that wakes often is charged for waking the core, several times the cost of its work.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        preexec_fn=parent_death_hook(os.getpid()),  # noqa: PLW1509  # it takes no lock
    )
    try:
        os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        process.kill()
        process.wait()
