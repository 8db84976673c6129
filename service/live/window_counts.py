"""Counts of interactions by item within a window of time, of training and live events together.

Invariant: the event loop never counts: a thread does, and the counts are kept for a few seconds. An interaction of the
training is counted once, because live events count from the end of the training data on.
"""

import asyncio
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.lists.popular_window import training_counts, training_end_s
from service.live.live_state import LiveState, Snapshot
from service.models.snapshot import ModelSnapshot
from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.live.live_event import LiveEvent

# A dismissal makes no item popular.
COUNTED_TYPES: Final = frozenset({"rating", "purchase", "click", "view"})
_KEPT_S: Final = 5.0
_MOST_KEPT: Final = 16
_MS_PER_S: Final = 1000


class _Kept(NamedTuple):
    snapshot: weakref.ref[ModelSnapshot]
    until_s: float
    counts: asyncio.Future[NDArray[np.float64]]


class WindowCounts:
    """Counts interactions for lists of what is popular in a window."""

    def __init__(self, state: LiveState) -> None:
        self._state = state
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    async def counts(self, snapshot: ModelSnapshot, window_s: int) -> NDArray[np.float64]:
        """Return the counts of a model's items in a window that ends with the latest interaction: float64 (n_items,).

        They are a few seconds old at most.
        """
        kept = self._kept.get(window_s)
        now_s = time.monotonic()
        if kept is None or kept.snapshot() is not snapshot or now_s >= kept.until_s:
            # Requests of the meantime wait for the same count.
            before, since = self._state.of_all()
            work = partial(window_counts, snapshot, window_s, before, since)
            counted = asyncio.ensure_future(run_in_daemon_thread(work, "window-counter"))
            kept = self._kept[window_s] = _Kept(weakref.ref(snapshot), now_s + _KEPT_S, counted)
            self._kept.move_to_end(window_s)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return await asyncio.shield(kept.counts)


def window_counts(
    snapshot: ModelSnapshot, window_s: int, before: Snapshot, since: Sequence[LiveEvent]
) -> NDArray[np.float64]:
    """Count the interactions of a model's items in a window that ends with the latest one: float64 (n_items,).

    Args:
        snapshot: The model.
        window_s: The length of the window in seconds.
        before: The state snapshot.
        since: The live events that it lacks.
    """
    counted = [event for event in since if event.type in COUNTED_TYPES]
    trained_until_s = training_end_s(snapshot)
    latest_ms = max(before.latest_ms(), max((event.time_ms for event in counted), default=0))
    live_from_ms = 0
    if trained_until_s is not None:
        live_from_ms = (trained_until_s + 1) * _MS_PER_S
        latest_ms = max(latest_ms, trained_until_s * _MS_PER_S)
    since_ms = latest_ms - window_s * _MS_PER_S
    counts = training_counts(snapshot, since_ms / _MS_PER_S).astype(np.float64)
    row_of = snapshot.items.row_of
    from_ms = max(live_from_ms, since_ms)
    for items, n_events in before.item_counts(COUNTED_TYPES, from_ms):
        for code in np.flatnonzero(n_events).tolist():
            if (row := row_of.get(items[code])) is not None:
                counts[row] += n_events[code]
    for event in counted:
        if event.time_ms >= from_ms and (row := row_of.get(event.item_id)) is not None:
            counts[row] += 1
    return counts
