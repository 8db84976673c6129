"""The items nearest to one item: by the cosine of their factors, or of their sets of users.

Invariant: as in `scoring`, exact similarities come from one float64 routine, and a float32 product approximates them
to choose the candidates of a list.
"""

from typing import Final

import numpy as np

from service.models.neighbourhood import Scores, row_entries
from service.models.ranking.scoring import Rows, products
from service.models.snapshot import Float32, ModelSnapshot

# Users sampled in a model without factors.
_MAX_USERS: Final = 1000
_EPSILON: Final = float(np.finfo(np.float32).eps)


def exact_similarities(snapshot: ModelSnapshot, item_row: int, rows: Rows) -> Scores:
    """Return the cosines of items' factors with those of one item: float64 (m,), by the routine of `exact_scores`."""
    similarities = products(snapshot.item_factors.take(rows, axis=0), snapshot.item_factors[item_row])
    similarities /= snapshot.item_norms[rows].astype(np.float64) * float(snapshot.item_norms[item_row])
    return similarities


def approximate_similarities(snapshot: ModelSnapshot, item_row: int) -> tuple[Float32, float]:
    """Return the cosines with one item, float32 (n_items,), -inf for itself, and their largest error."""
    approximate: Float32 = snapshot.item_factors @ snapshot.item_factors[item_row]
    approximate /= snapshot.item_norms * snapshot.item_norms[item_row]
    approximate[item_row] = -np.inf
    return approximate, (snapshot.n_factors + 16) * _EPSILON


def shared_user_cosines(snapshot: ModelSnapshot, item_row: int) -> tuple[Rows, Scores]:
    """Return the items that share users with one item: int64 (m,), ascending, without the item.

    Returns:
        Also the number of users that each shares over the root of the product of both items' numbers, float64 (m,).
    """
    by_item = snapshot.seen_by
    users = by_item.indices[by_item.indptr[item_row] : by_item.indptr[item_row + 1]]
    # A sample suffices for an item that most users have seen, and bounds the time.
    users = users[:: max(1, -(-users.size // _MAX_USERS))]
    positions, _ = row_entries(snapshot.history, users)
    shared = np.bincount(snapshot.history.indices[positions], minlength=len(snapshot.items))
    counts = np.diff(by_item.indptr)
    shared[item_row] = 0
    rows = np.flatnonzero(shared)
    return rows, shared[rows] / np.sqrt(max(1, users.size) * counts[rows].astype(np.float64))
