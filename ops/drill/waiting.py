"""Waits for a condition of the system under drill, which tells nobody when it changes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

from loadbalancer.processes import Child

_LOOK_EVERY_S = 0.05


async def until(
    condition: Callable[[], object | Awaitable[object]], limit_s: float, every_s: float = _LOOK_EVERY_S
) -> bool:
    """Ask again and again until the answer is true.

    Args:
        condition: The question; may be a coroutine function.
        limit_s: How long to go on.
        every_s: The pause between two questions.

    Returns:
        Whether it came true in time.
    """
    deadline_s = time.monotonic() + limit_s
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return True
        if time.monotonic() >= deadline_s:
            return False
        await asyncio.sleep(every_s)


async def end(child: Child, limit_s: float) -> None:
    """Stop a process that the drill started, kill it if that takes longer than `limit_s`, and reap it."""
    child.stop()
    await until(child.exited, limit_s)
    child.reap()
