"""Reads from a layer of events what users did with some items: a search by item, where layers are sorted by user."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from telemetry.live.event_layer import EventLayer
from telemetry.live.live_event import LIVE_TYPES


class ItemAction(NamedTuple):
    """An action of a user on an item.

    Attributes:
        user_half: The first half of the user's digest, as a number.
        item_id: The item.
        type: The type of the event.
        value: Its value.
        time_ms: Its time, Unix time in milliseconds.
        received_ms: When it was received.
    """

    user_half: int
    item_id: str
    type: str
    value: float | None
    time_ms: int
    received_ms: int


def item_actions(layer: EventLayer, is_wanted: Callable[[str], bool]) -> Iterator[ItemAction]:
    """Yield the actions on some items.

    Args:
        layer: The layer; its column of items is read once.
        is_wanted: Chooses the items by id.
    """
    wanted = np.array([is_wanted(item_id) for item_id in layer.items()], dtype=bool)
    if not wanted.any():
        return
    columns = layer.columns
    places = np.flatnonzero(wanted[columns["item"]])
    rows = np.searchsorted(layer.starts, places, side="right") - 1
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        code = int(columns["value"][place])
        time_ms = int(columns["time"][place])
        yield ItemAction(
            int(layer.high[row]),
            layer.item(int(columns["item"][place])),
            LIVE_TYPES[int(columns["type"][place])],
            float(layer.values[code - 1]) if code else None,
            time_ms,
            time_ms + int(columns["delay"][place]),
        )
