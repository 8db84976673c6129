"""Protects work from the cancellation of its caller until it has ended."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


async def shield_until_done(work: Awaitable[_T]) -> _T:
    """Return the result of some work; a cancellation that arrives meanwhile is raised once the work has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        # Retrieved, so that asyncio does not report it as lost; the cancellation wins.
        if not task.cancelled():
            task.exception()
        raise
