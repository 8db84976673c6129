"""The vectors of all training users as the fold-in `decayed_sum` gives them for one."""

import numpy as np

from service.models.history_weights import HistoryWeights
from service.training.algorithms.kernels.sparse_products import weighted_sums
from service.training.assembly import HistoryEntries
from service.training.entry_weights import entry_weights
from service.training.interactions import Float32


def summed_users(entries: HistoryEntries, weights: HistoryWeights, input_factors: Float32) -> Float32:
    """Add the input factors of each user's items, each times its weight, oldest first: float32 (n_users, k).

    Args:
        entries: The histories.
        weights: How their interactions are weighted.
        input_factors: Float32 (n_items, k).
    """
    indptr = entries.history.indptr.astype(np.int64)
    by_time = np.empty(entries.ranks.size, dtype=np.int64)
    by_time[np.repeat(indptr[:-1], np.diff(indptr)) + entries.ranks] = np.arange(by_time.size)
    items = entries.history.indices[by_time]
    return weighted_sums(indptr, items, entry_weights(entries, weights)[by_time], input_factors)
