"""Diversity: a list that trades score for items unlike those already in it, by maximal marginal relevance.

Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", SIGIR 1998. The items come from a pool several times as long as the list, so that diversity changes which
items are in the list and not only their order.

Invariant: a list of n items is the beginning of the list of more items from the same pool.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Similarities = Callable[[int], NDArray[np.float64]]
"""(index of a candidate) -> its similarity to each candidate, float64 (m,), at most 1."""

_POOL_FACTOR: Final = 8
_LEAST_POOL: Final = 100
_MOST_POOL: Final = 2000


def pool_size(n: int) -> int:
    """Return how many of the best items a list of n items is chosen from."""
    return max(n, min(_MOST_POOL, max(_LEAST_POOL, _POOL_FACTOR * n)))


def diversify(
    scores: NDArray[np.float64], similarities_to: Similarities, n: int, diversity: float
) -> NDArray[np.int64]:
    """Choose the items of a list one by one, each with the largest marginal relevance.

    That is (1 - diversity) * relevance - diversity * the largest similarity to a chosen item, where relevance is the
    score, scaled to 0 to 1 over the pool. Equal items keep the order of the pool.

    Args:
        scores: Float64 (m,), the scores of the pool, best first.
        similarities_to: The similarities of a candidate to all.
        n: The length of the list.
        diversity: 0, the order of scores, to 1, where scores matter for the first item alone.

    Returns:
        The indices of the chosen candidates, int64 (min(n, m),), in the order of the list.
    """
    n = min(n, scores.size)
    if diversity <= 0 or n < 2:
        return np.arange(n)
    spread = scores[0] - scores[-1]
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.ones(scores.size)
    relevance *= 1 - diversity
    chosen = np.empty(n, dtype=np.int64)
    nearest = np.full(scores.size, -np.inf)
    best = 0
    for place in range(n):
        chosen[place] = best
        relevance[best] = -np.inf
        np.maximum(nearest, similarities_to(best), out=nearest)
        best = int(np.argmax(relevance - diversity * nearest))
    return chosen
