"""Fold-in by a weighted sum of the input factors of a user's items, as in PureSVD and next-item models."""

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.neighbour_sum import NEGLIGIBLE
from service.models.fold_in.settings import FoldIn
from service.models.representation import UserRepresentation
from service.models.user_history import UserHistory


def decayed_sum(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Return the sum of the items' input factors, each times its weight unless that is negligible.

    The sum is divided by the sum of the absolute weights to the power of the parameter `norm_exponent`, 0 by default.
    """
    weights = how.weights.of(recent)
    inputs = model.item_factors if model.input_factors is None else model.input_factors
    sizes = np.abs(weights)
    kept = np.flatnonzero(sizes > NEGLIGIBLE * np.max(sizes, initial=0.0))
    # It adds row by row, as a BLAS product need not.
    factors = np.einsum("i,ij->j", weights[kept], inputs.take(recent.rows[kept], axis=0))
    exponent = how.parameters.get("norm_exponent", 0.0)
    total = float(sizes.sum())
    if exponent and total > 0:
        factors *= total**-exponent
    return UserRepresentation(factors.astype(np.float32), model.global_mean, seen)
