"""Fold-in of a model with item neighbours: the user's items with their weights."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.settings import FoldIn
from service.models.representation import UserRepresentation
from service.models.user_history import UserHistory

_NO_FACTORS: Final = np.empty(0, dtype=np.float32)


def neighbour_sum(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Return the recent items as inputs, each with its weight if that is not 0."""
    rows, weights = recent.rows, how.weights.of(recent)
    if not weights.all():
        rows, weights = rows[weights != 0], weights[weights != 0]
    return UserRepresentation(_NO_FACTORS, model.global_mean, seen, rows, weights)
