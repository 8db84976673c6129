"""The part of each interaction in the factors that a user tower computes: what changes without it.

Leaving out one interaction at a time (Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV
2014) works for any tower. What the differences do not add up to, because interactions say the same or need each other,
is divided evenly, so that all parts together are what the history says: the user less a user without a history.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.network_user import network_user
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import NO_HISTORY, UserHistory

# The latest interactions that are left out in turn; an explanation names a few items. Each costs a run of the tower.
_MOST: Final = 50
_MOST_OF_SLOW: Final = 10


def network_parts(model: ItemTables, how: FoldIn, recent: UserHistory) -> NDArray[np.float64]:
    """Return the part of each interaction within the window: float64 (m, k + 1), the constant last."""
    n = recent.rows.size
    is_slow = model.networks is not None and model.networks.user_tower.is_slow
    whole, none = _user(model, how, recent), _user(model, how, NO_HISTORY)
    parts = np.zeros((n, whole.size))
    for left_out in range(n - 1, max(-1, n - 1 - (_MOST_OF_SLOW if is_slow else _MOST)), -1):
        parts[left_out] = whole - _user(model, how, _without(recent, left_out))
    parts += (whole - none - parts.sum(axis=0)) / n
    return parts


def _user(model: ItemTables, how: FoldIn, history: UserHistory) -> NDArray[np.float64]:
    """Return the factors and the constant of a user of whom only a history is known: float64 (k + 1,)."""
    found = network_user(model, how, history, history.rows, None, None)
    return np.append(found.factors.astype(np.float64), found.constant)


def _without(history: UserHistory, place: int) -> UserHistory:
    """Return a history without one interaction."""
    kept = np.arange(history.rows.size) != place
    times_s = None if history.times_s is None else history.times_s[kept]
    return UserHistory(history.rows[kept], history.values[kept], history.types[kept], times_s)
