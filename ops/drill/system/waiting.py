"""Polls conditions of the drilled system, which sends no notifications."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

from loadbalancer.supervision.processes import Child

_POLL_EVERY_S = 0.05


async def poll_until(
    condition: Callable[[], object | Awaitable[object]], limit_s: float, every_s: float = _POLL_EVERY_S
) -> bool:
    """Evaluate a condition, which may be a coroutine function, until it is true; return whether it was in time."""
    deadline_s = time.monotonic() + limit_s
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return True
        if time.monotonic() >= deadline_s:
            return False
        await asyncio.sleep(every_s)


async def stop_child(child: Child, limit_s: float) -> None:
    """Stop a process that the drill started, kill it if that takes longer than `limit_s`, and reap it."""
    child.stop()
    await poll_until(child.exited, limit_s)
    child.reap()
