"""Work that is not to be left half done.

Invariant: `finish` ends only after the work has ended; a cancellation that arrives meanwhile is delivered then.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


async def shield_until_done(work: Awaitable[_T]) -> _T:
    """Finish a piece of work even if we are cancelled, and be cancelled then.

    Args:
        work: The work.

    Returns:
        What it returns.

    Raises:
        Exception: What it raises.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        # Retrieved, so that it is not reported as forgotten; the cancellation wins.
        if not task.cancelled():
            task.exception()
        raise
