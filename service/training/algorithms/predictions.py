"""Predicted ratings of pairs, for measures of error.

Invariant: a prediction is the score of `ModelSnapshot`, clipped to the rating scale. Unknown users and items have zero
biases and factors. A model without biases predicts the mean training rating for them, as scikit-surprise does.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.snapshot import ModelSnapshot

# Two gathered blocks of factors fit into a second-level cache.
_BLOCK_BYTES: Final = 1 << 20


def predict(snapshot: ModelSnapshot, user_rows: NDArray[np.int32], item_rows: NDArray[np.int32]) -> NDArray[np.float64]:
    """Predict the rating of each pair of `user_rows` and `item_rows`, int32 (n,): float64 (n,)."""
    predicted = np.empty(user_rows.size, dtype=np.float64)
    block = max(256, _BLOCK_BYTES // (4 * max(1, snapshot.n_factors)))
    for start in range(0, user_rows.size, block):
        users, items = user_rows[start : start + block], item_rows[start : start + block]
        predicted[start : start + block] = np.einsum(
            "ij,ij->i", snapshot.user_factors[users], snapshot.item_factors[items]
        )
    predicted += snapshot.user_bias[user_rows]
    predicted += snapshot.item_bias[item_rows]
    predicted += snapshot.global_mean
    if not snapshot.user_bias.any() and not snapshot.item_bias.any():
        known_user = np.diff(snapshot.history.indptr) > 0
        known_item = np.bincount(snapshot.history.indices, minlength=len(snapshot.items)) > 0
        mean = float(snapshot.history.data.mean(dtype=np.float64)) if snapshot.history.data.size else 0.0
        predicted[~(known_user[user_rows] & known_item[item_rows])] = mean
    return np.clip(predicted, snapshot.rating_min, snapshot.rating_max, out=predicted)
