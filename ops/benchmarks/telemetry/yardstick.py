"""The yardstick of telemetry: the least that a Python team would write, with redis-py as it comes.

The invariant: it does nothing of what ours does on top: no log, no numbers, no check of what arrived. It is the one
file beside `redis_connection` that imports redis, because it stands for those who use the client directly.
"""

from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis

_KEY: Final = "yardstick"
_GROUP: Final = "counting"
_PIPELINE_EVENTS: Final = 500
_BATCH_LINES: Final = 100


async def pipeline(url: str, make_line: Callable[[int], bytes], events: int) -> None:
    """Send events one XADD each, 500 in a pipeline.

    Args:
        url: The Redis.
        make_line: Makes the line of an event, by its number.
        events: How many.
    """
    async with Redis.from_url(url) as redis:
        for first in range(0, events, _PIPELINE_EVENTS):
            batch = redis.pipeline(transaction=False)
            for index in range(first, min(first + _PIPELINE_EVENTS, events)):
                batch.xadd(_KEY, {"data": make_line(index)})
            await batch.execute()


async def batches(url: str, make_line: Callable[[int], bytes], events: int) -> None:
    """Send events 100 lines in each XADD; arguments as for `pipeline`."""
    async with Redis.from_url(url) as redis:
        for first in range(0, events, _BATCH_LINES):
            lines = [make_line(index) for index in range(first, min(first + _BATCH_LINES, events))]
            await redis.xadd(_KEY, {"data": b"".join(lines)})


async def count(url: str) -> int:
    """Read what `pipeline` sent, acknowledge it, and count it; nothing of it is kept anywhere."""
    entries = 0
    # The older protocol: its replies have one shape in every version of the client.
    async with Redis.from_url(url, protocol=2) as redis:
        await redis.xgroup_create(_KEY, _GROUP, id="0")
        while reply := await redis.xreadgroup(_GROUP, "bench", {_KEY: ">"}, count=_PIPELINE_EVENTS):
            replied: Any = reply
            ((_, found),) = replied
            entries += len(found)
            await redis.xack(_KEY, _GROUP, *(entry_id for entry_id, _ in found))
    return entries


async def clear(url: str) -> None:
    """Forget what was sent."""
    async with Redis.from_url(url) as redis:
        await redis.delete(_KEY)
