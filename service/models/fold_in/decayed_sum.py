"""Fold-in by a weighted sum of the input factors of a user's items, as in PureSVD."""

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.neighbour_sum import not_negligible
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory


def decayed_sum(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Return the sum of the items' input factors, each times its weight unless that is negligible, at its scale."""
    weights = how.weights.of(recent)
    inputs = model.item_factors if model.input_factors is None else model.input_factors
    kept = not_negligible(weights)
    # It adds row by row, as a BLAS product need not.
    factors = np.einsum("i,ij->j", weights[kept], inputs.take(recent.rows[kept], axis=0))
    factors *= scale_of_sum(weights, how)
    return UserRepresentation(factors.astype(np.float32), model.global_mean, seen)


def scale_of_sum(weights: NDArray[np.float64], how: FoldIn) -> float:
    """Return what the sum is multiplied by: the sum of the absolute weights to the power of -`norm_exponent`.

    The parameter is 0 by default, so that the sum stays as it is.

    Args:
        weights: Float64 (m,).
    """
    exponent = how.parameters.get("norm_exponent", 0.0)
    total = float(np.abs(weights).sum())
    return total**-exponent if exponent and total > 0 else 1.0
