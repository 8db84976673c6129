"""How popular items are: interactions counted, older ones for less (pure)."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Interactions

_DAY_S: Final = 86400.0
_WRONG_CLOCKS: Final = 1000  # one interaction in so many


def decayed(data: Interactions, half_life_days: float) -> NDArray[np.float32]:
    """Count each item's interactions, where one of age a counts 2 ** (-a / half_life_days).

    Age is relative to the youngest interaction, so that the same data gives the same popularity whenever it is trained
    on; up to one interaction in a thousand may be younger, so that a few wrong clocks do not make everything else too
    old to count. Without times every interaction counts 1.

    Args:
        data: The interactions.
        half_life_days: Days, above 0.

    Returns:
        float32 (n_items,), in the row order of `data.items`.
    """
    weights = None
    if data.timestamps is not None and len(data):
        place = len(data) - 1 - len(data) // _WRONG_CLOCKS
        youngest = np.partition(data.timestamps, place)[place]
        age_days = np.maximum(youngest - data.timestamps, 0) / _DAY_S
        weights = np.exp2(-age_days / half_life_days)
    return np.bincount(data.item_rows, weights=weights, minlength=len(data.items)).astype(np.float32)
