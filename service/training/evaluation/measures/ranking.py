"""Ranking measures of the first k places of a list (pure): one value per judged user; the measure is their mean.

Relevance is binary, and lists are of the whole catalogue. A user without a relevant item is not judged (`relevance`); a
user without a hit has 0. With h_j = 1 if place j holds a relevant item, and r the number of the user's relevant items,
whether or not they could be listed:

=============  =====================================================================================================
precision@k    sum h_j / k, also for a list that is shorter than k
recall@k       sum h_j / r
map@k          sum h_j (sum of h up to j) / j, divided by min(k, r): average precision
ndcg@k         sum h_j / log2(j + 1), divided by its value when the first min(k, r) places are hits
               (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002)
mrr@k          1 / the first place with a hit
hit_rate@k     1 if there is a hit
=============  =====================================================================================================

Each function takes hits, bool (m, k), and counts, int64 (m,), the relevant items of each user, at least 1. It returns
float64 (m,).
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Int64

Hits = NDArray[np.bool_]
PerUser = NDArray[np.float64]


def precision(hits: Hits, counts: Int64) -> PerUser:
    """Return the share of places with a hit."""
    result: PerUser = hits.mean(axis=1, dtype=np.float64)
    return result


def recall(hits: Hits, counts: Int64) -> PerUser:
    """Return the share of the relevant items that the list holds."""
    result: PerUser = hits.sum(axis=1) / counts
    return result


def average_precision(hits: Hits, counts: Int64) -> PerUser:
    """Return the sum of the precision at each hit over the largest possible number of hits."""
    k = hits.shape[1]
    at_hits = np.cumsum(hits, axis=1) * hits / np.arange(1, k + 1, dtype=np.float64)
    result: PerUser = at_hits.sum(axis=1) / np.minimum(counts, k)
    return result


def ndcg(hits: Hits, counts: Int64) -> PerUser:
    """Return the discounted gain over the ideal one."""
    k = hits.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2, dtype=np.float64))
    ideal = np.cumsum(discounts)[np.minimum(counts, k) - 1]
    result: PerUser = np.where(hits, discounts, 0.0).sum(axis=1) / ideal
    return result


def reciprocal_rank(hits: Hits, counts: Int64) -> PerUser:
    """Return 1 over the place of the first hit, counted from 1."""
    result: PerUser = hits.any(axis=1) / (hits.argmax(axis=1) + 1)
    return result


def hit_rate(hits: Hits, counts: Int64) -> PerUser:
    """Return 1 for a list with a hit, else 0."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


RANKING_MEASURES: Final[dict[str, Callable[[Hits, Int64], PerUser]]] = {
    "precision": precision,
    "recall": recall,
    "map": average_precision,
    "ndcg": ndcg,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}
