"""What a model predicts for pairs, for measuring it; a list for a user is ranked by `service.models.scoring` instead.

Invariant: a prediction is the score of `ModelSnapshot`, clipped to the rating scale. What a model never saw has zero
bias and zero factors (`fit` sees to it), so that the formula itself predicts by what is known. Only a model without
biases knows nothing then; it predicts the mean training rating, as scikit-surprise does.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.snapshot import ModelSnapshot

# Two gathered blocks of 100 float32 factors for so many pairs fit into a second-level cache together.
_BLOCK_BYTES: Final = 1 << 20


def predict(snapshot: ModelSnapshot, user_rows: NDArray[np.int32], item_rows: NDArray[np.int32]) -> NDArray[np.float64]:
    """Predict the rating of each pair.

    Args:
        snapshot: The model.
        user_rows: Int32 (n,).
        item_rows: Int32 (n,), in the same order.

    Returns:
        float64 (n,), between rating_min and rating_max.
    """
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
    if _is_without_baseline(snapshot):
        known_user = np.diff(snapshot.history.indptr) > 0
        known_item = np.bincount(snapshot.history.indices, minlength=len(snapshot.items)) > 0
        mean = float(snapshot.history.data.mean(dtype=np.float64)) if snapshot.history.data.size else 0.0
        predicted[~(known_user[user_rows] & known_item[item_rows])] = mean
    return np.clip(predicted, snapshot.rating_min, snapshot.rating_max, out=predicted)


def _is_without_baseline(snapshot: ModelSnapshot) -> bool:
    return not snapshot.user_bias.any() and not snapshot.item_bias.any()
