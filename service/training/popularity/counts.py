"""Popularity of items: counts of interactions, with exponential decay or within a window of time."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Interactions

_DAY_S: Final = 86400.0
_FUTURE_SHARE: Final = 1000  # one interaction in so many may have a wrong time


def decayed(data: Interactions, half_life_days: float, window_days: float = math.inf) -> NDArray[np.float32]:
    """Count each item's interactions, each with weight 2 ** (-age_days / half_life_days): float32 (n_items,).

    Age is relative to the latest interaction, so that the same data always gives the same counts. The latest one in a
    thousand interactions is ignored for this, so that a few wrong clocks do not age all others. Without times every
    weight is 1.

    Args:
        data: The interactions.
        half_life_days: Infinity for no decay.
        window_days: Interactions of a greater age do not count.
    """
    weights = None
    if data.timestamps is not None and len(data):
        place = len(data) - 1 - len(data) // _FUTURE_SHARE
        latest = np.partition(data.timestamps, place)[place]
        age_days = np.maximum(latest - data.timestamps, 0) / _DAY_S
        weights = np.exp2(-age_days / half_life_days)
        weights[age_days > window_days] = 0
    return np.bincount(data.item_rows, weights=weights, minlength=len(data.items)).astype(np.float32)
