"""Which rung of the ladder lists are served from, beside the balancer's own `static` one.

None means that every part runs. `stale_model`: the model store cannot be read, so a newer model may be waiting.
`stale`: events are not getting into the archive (Redis or the consumer is away), so what users did just now is not in
their lists.
"""

from __future__ import annotations

import asyncio
from typing import Final

from service.parts import Parts
from service.watcher import Watcher

_LOOK_EVERY_S: Final = 0.25
_UNCONNECTED_FOR_S: Final = 1.0


async def follow(parts: Parts, watcher: Watcher) -> None:
    """Keep `parts.state.degraded` right until cancelled."""
    loop = asyncio.get_running_loop()
    connected_at = loop.time()
    while True:
        if parts.producer.counters.connected:
            connected_at = loop.time()
        if not watcher.readable:
            parts.state.degraded = "stale_model"
        elif loop.time() - connected_at > _UNCONNECTED_FOR_S:
            parts.state.degraded = "stale"
        else:
            parts.state.degraded = None
        await asyncio.sleep(_LOOK_EVERY_S)
