"""How item-to-item models are served: what a user has seen speaks, and what it says is added up."""

import numpy as np
from scipy.sparse import csr_array

from service.models.neighbourhood import Neighbourhood
from service.training.interactions import Float32, Int32, Int64


def speaking(weights: Float32, items: Int32, counts: Int64) -> Neighbourhood:
    """Return the neighbourhood of items that speak for items.

    Args:
        weights: Float32 (m,), speaker after speaker.
        items: Int32 (m,), whom each weight is for, ascending for each speaker.
        counts: Int64 (n_items,), how many weights each speaker has.
    """
    n_items = counts.size
    indptr = np.concatenate([[0], np.cumsum(counts)])
    if weights.size <= np.iinfo(np.int32).max:
        # scipy would widen the indices to the type of the pointers.
        indptr = indptr.astype(np.int32)
    kept = csr_array((weights, items, indptr), shape=(n_items, n_items))
    kept.indices = kept.indices.astype(np.int32, copy=False)
    return Neighbourhood(over="items", combine="sum", signal="seen", weights=kept)
