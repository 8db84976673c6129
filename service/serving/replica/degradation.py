"""The degradation level of a replica's lists; the balancer adds a level of its own, `static`.

- None: every part of the installation runs.
- `stale_model`: the model store is unreadable, so a newer model may be waiting.
- `stale`: new events do not reach the lists of every replica, because Redis does not answer this replica, or the
  consumer does not archive, or its feed of live events does not move.
"""

import asyncio
from typing import Final

from service.live.feed_follower import FeedFollower
from service.serving.model.watcher import Watcher
from service.serving.replica.context import ReplicaContext

_CHECK_INTERVAL_S: Final = 0.25
_DISCONNECTED_LIMIT_S: Final = 1.0
# A killed consumer is restarted, or its standby takes over, within this time.
_UNARCHIVED_LIMIT_S: Final = 5.0


async def track_degradation(context: ReplicaContext, watcher: Watcher, follower: FeedFollower) -> None:
    """Keep `context.state.degraded` current until cancelled."""
    clock = asyncio.get_running_loop().time
    connected_at = archived_at = clock()
    archived = context.producer.archived
    while True:
        counters = context.producer.counters
        if counters.connected:
            connected_at = clock()
        if not counters.unarchived_events or context.producer.archived != archived:
            archived_at = clock()
            archived = context.producer.archived
        if not watcher.readable:
            context.state.degraded = "stale_model"
        elif (
            clock() - connected_at > _DISCONNECTED_LIMIT_S
            or max(clock() - archived_at, follower.silent_s) > _UNARCHIVED_LIMIT_S
        ):
            context.state.degraded = "stale"
        else:
            context.state.degraded = None
        await asyncio.sleep(_CHECK_INTERVAL_S)
