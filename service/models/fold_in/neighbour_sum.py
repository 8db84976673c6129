"""Fold-in of a model with item neighbours: the user's items with their weights."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory

_NO_FACTORS: Final = np.empty(0, dtype=np.float32)
# Relative to the largest weight: below what float32 tables resolve.
NEGLIGIBLE: Final = 2.0**-24


def neighbour_sum(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Return the recent items as inputs, each with its weight unless that is negligible.

    So the cost of a list is bounded by the half-life, however long the history is.
    """
    weights = how.weights.of(recent)
    inputs = not_negligible(weights)
    return UserRepresentation(_NO_FACTORS, model.global_mean, seen, recent.rows[inputs], weights[inputs])


def not_negligible(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the places of the weights, float64 (m,), that are not negligible beside the largest: int64, ascending."""
    sizes = np.abs(weights)
    return np.flatnonzero(sizes > NEGLIGIBLE * np.max(sizes, initial=0.0))
