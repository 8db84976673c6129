"""The yardstick of telemetry: the least code with plain redis-py.

Invariant: no write-ahead log, no sequence numbers, no check of what arrived. It is the one file beside
`redis_connection` that imports redis, because it stands for direct use of the client.
"""

from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis

_KEY: Final = "yardstick"
_GROUP: Final = "counting"
_PIPELINE_EVENTS: Final = 500
_BATCH_LINES: Final = 100


async def pipeline(url: str, make_line: Callable[[int], bytes], events: int) -> None:
    """Send the lines of so many events, one XADD each, 500 in a pipeline."""
    async with Redis.from_url(url) as redis:
        for first in range(0, events, _PIPELINE_EVENTS):
            batch = redis.pipeline(transaction=False)
            for index in range(first, min(first + _PIPELINE_EVENTS, events)):
                batch.xadd(_KEY, {"data": make_line(index)})
            await batch.execute()


async def batches(url: str, make_line: Callable[[int], bytes], events: int) -> None:
    """Send the lines of so many events, 100 in each XADD."""
    async with Redis.from_url(url) as redis:
        for first in range(0, events, _BATCH_LINES):
            lines = [make_line(index) for index in range(first, min(first + _BATCH_LINES, events))]
            await redis.xadd(_KEY, {"data": b"".join(lines)})


async def count(url: str) -> int:
    """Read the entries of `pipeline`, acknowledge and count them."""
    entries = 0
    # Replies of RESP2 have the same shape in every version of the client.
    async with Redis.from_url(url, protocol=2) as redis:
        await redis.xgroup_create(_KEY, _GROUP, id="0")
        while reply := await redis.xreadgroup(_GROUP, "bench", {_KEY: ">"}, count=_PIPELINE_EVENTS):
            replied: Any = reply
            ((_, found),) = replied
            entries += len(found)
            await redis.xack(_KEY, _GROUP, *(entry_id for entry_id, _ in found))
    return entries


async def clear(url: str) -> None:
    """Delete the stream."""
    async with Redis.from_url(url) as redis:
        await redis.delete(_KEY)
