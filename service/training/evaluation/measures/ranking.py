"""How good ranked lists are (pure): binary relevance, one value per judged user, the mean over users is the measure.

All are of the first k places of a list from the whole catalogue, and 0 for a user none of whose relevant items is
there. A user without a relevant item is never judged (`relevance`). With h_j = 1 where place j holds a relevant item,
and r the number of the user's relevant items, whether or not they could be listed:

=============  =====================================================================================================
precision@k    sum h_j / k, also for a list that is shorter than k
recall@k       sum h_j / r
map@k          sum h_j (sum of h up to j) / j, divided by min(k, r): average precision
ndcg@k         sum h_j / log2(j + 1), divided by what it is when the first min(k, r) places are hits
               (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002)
mrr@k          1 / the first place with a hit
hit_rate@k     1 if there is a hit
=============  =====================================================================================================
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Int64

Hits = NDArray[np.bool_]
PerUser = NDArray[np.float64]


def precision(hits: Hits, counts: Int64) -> PerUser:
    """Return the share of places with a hit.

    Args:
        hits: Bool (m, k), which places hold a relevant item.
        counts: Int64 (m,), relevant items of each user, at least 1.

    Returns:
        float64 (m,), as all measures here.
    """
    result: PerUser = hits.mean(axis=1, dtype=np.float64)
    return result


def recall(hits: Hits, counts: Int64) -> PerUser:
    """Return the share of the relevant items that the list holds."""
    result: PerUser = hits.sum(axis=1) / counts
    return result


def average_precision(hits: Hits, counts: Int64) -> PerUser:
    """Return the precision at each hit, summed, over the most hits there could be."""
    k = hits.shape[1]
    at_hits = np.cumsum(hits, axis=1) * hits / np.arange(1, k + 1, dtype=np.float64)
    result: PerUser = at_hits.sum(axis=1) / np.minimum(counts, k)
    return result


def ndcg(hits: Hits, counts: Int64) -> PerUser:
    """Return the discounted gain over the best there could be."""
    k = hits.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2, dtype=np.float64))
    ideal = np.cumsum(discounts)[np.minimum(counts, k) - 1]
    result: PerUser = np.where(hits, discounts, 0.0).sum(axis=1) / ideal
    return result


def reciprocal_rank(hits: Hits, counts: Int64) -> PerUser:
    """Return 1 over the place of the first hit, counted from 1; 0 without one."""
    result: PerUser = hits.any(axis=1) / (hits.argmax(axis=1) + 1)
    return result


def hit_rate(hits: Hits, counts: Int64) -> PerUser:
    """Return 1 where there is a hit, 0 elsewhere."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


RANKING_MEASURES: Final[dict[str, Callable[[Hits, Int64], PerUser]]] = {
    "precision": precision,
    "recall": recall,
    "map": average_precision,
    "ndcg": ndcg,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}
