"""Which rung of the ladder lists are served from, beside the balancer's own `static` one.

None means that every part runs. `stale_model`: the model store cannot be read, so a newer model may be waiting.
`stale`: what users did just now cannot be in their lists, because Redis does not answer this replica, or because it
does and yet nothing reaches the archive: the consumer is away.
"""

import asyncio
from typing import Final

from service.serving.context import Parts
from service.serving.watcher import Watcher

_LOOK_EVERY_S: Final = 0.25
_UNCONNECTED_FOR_S: Final = 1.0
# A consumer that was killed is back, or replaced by its standby, within this.
_UNARCHIVED_FOR_S: Final = 5.0


async def follow(parts: Parts, watcher: Watcher) -> None:
    """Keep `parts.state.degraded` right until cancelled."""
    clock = asyncio.get_running_loop().time
    connected_at = archived_at = clock()
    archived = parts.producer.archived
    while True:
        counters = parts.producer.counters
        if counters.connected:
            connected_at = clock()
        if not counters.unarchived_events or parts.producer.archived != archived:
            archived_at = clock()
            archived = parts.producer.archived
        if not watcher.readable:
            parts.state.degraded = "stale_model"
        elif clock() - connected_at > _UNCONNECTED_FOR_S or clock() - archived_at > _UNARCHIVED_FOR_S:
            parts.state.degraded = "stale"
        else:
            parts.state.degraded = None
        await asyncio.sleep(_LOOK_EVERY_S)
