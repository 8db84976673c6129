"""Fold-in of a model that predicts ratings from item neighbours: the user's bias, and the items that the user rated.

The bias is (sum of r - mu - b_i) / ((1 + reg_bias) n + reg_bias_fixed) over the n ratings of the user, as that of the
baseline that the model was learnt with.

Parameters: `reg_bias` and `reg_bias_fixed`; `biased`, 1 or 0; `residuals`, 1 if the signal of an item is the residual
of its rating above mean and biases, and 0 if it is 1.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory

_NO_FACTORS: Final = np.empty(0, dtype=np.float32)


def residual_sum(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Return the recent items as inputs, each with its residual or 1."""
    parameters, n = how.parameters, recent.rows.size
    residuals = np.clip(recent.values, model.rating_min, model.rating_max).astype(np.float64)
    residuals -= model.item_bias[recent.rows]
    residuals -= model.global_mean
    divisor = (1 + parameters["reg_bias"]) * n + parameters["reg_bias_fixed"]
    bias = float(residuals.sum()) / divisor if n and parameters["biased"] else 0.0
    signals = residuals - bias if parameters["residuals"] else np.ones(n)
    return UserRepresentation(_NO_FACTORS, model.global_mean + bias, seen, recent.rows, signals)
