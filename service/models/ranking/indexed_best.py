"""The best items of a user by the index: it finds candidates, and exact scores decide.

Invariant: a list has the best items, by exact score, of the cells that its query searches and of the new items, which
are not in the index. So a shorter list is the beginning of a longer one, as without an index.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.models.index.item_index import ItemIndex
from service.models.snapshot import Float32, ModelSnapshot

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]

# Candidates beyond the length of the list.
_MARGIN: Final = 16
# More candidates cost as much as scoring all items.
_MOST: Final = 8192
# If a filter leaves a smaller share of the items, those that match are scored without the index.
_LEAST_SHARE: Final = 1 / 16


def indexed_best(
    snapshot: ModelSnapshot,
    index: ItemIndex,
    factors: Float32,
    bound: float,
    exact: Callable[[Rows], Scores],
    barred: NDArray[np.integer[Any]],
    count: int,
    mask: NDArray[np.bool_] | None = None,
) -> tuple[Rows, Scores] | None:
    """Return the `count` best items with their exact scores, or None if all items have to be scored instead.

    Args:
        snapshot: The model, perhaps with rows of new items behind those of the index.
        index: The index of its items.
        factors: Float32 (k,), the user's.
        bound: The largest excess of an exact score over the approximate one.
        exact: Returns the exact scores of rows.
        barred: Rows that may not be in the list; they may repeat.
        count: The length of the list.
        mask: Bool (n_items,), the items that may be in the list; None for all.
    """
    share = 1.0 if mask is None else float(np.count_nonzero(mask)) / mask.size
    if share < _LEAST_SHARE or not factors.any():
        # Without factors all scores are ties but for the biases.
        return None
    new = np.arange(index.n_items, len(snapshot.items))
    if mask is not None:
        new = new[mask[new]]
    if new.size and barred.size:
        new = new[~np.isin(new, barred)]
    size = count + _MARGIN
    while size <= min(_MOST, index.n_items):
        # The fewer items match the filter, the more cells are searched: about as many items are scored as without it.
        found = index.search(factors, size, barred, mask, widened=1 / share)
        cutoff = -math.inf if found.rows.size < size else float(found.scores.min())
        rows = np.concatenate([found.rows, new])
        if rows.size < count:
            return None
        scores = exact(rows)
        order = np.lexsort((snapshot.popular_ranks[rows], -scores))[:count]
        rows, scores = rows[order], scores[order]
        if not count or scores[-1] > cutoff + bound:
            return rows, scores
        size *= 4
    return None
