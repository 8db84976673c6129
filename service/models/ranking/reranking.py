"""Re-ranking: the best items by the product of factors, in the order of the scores of a ranker.

Items are ranked in blocks: the ranker orders the first `n_candidates` items, then the next ones, and so on. A usual
list lies in the first block.

Invariant: a list is the beginning of a longer one, so that pages agree whatever their length.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Float64 = NDArray[np.float64]


def whole_blocks(n: int, n_candidates: int) -> int:
    """Return how many items the first n places are chosen from."""
    return -(-n // n_candidates) * n_candidates


def rerank(rows: Rows, scores: Callable[[Rows], Float64], ranks: Rows, n_candidates: int) -> tuple[Rows, Float64]:
    """Order items by new scores, block by block.

    Args:
        rows: Int64 (m,), best first by the product of factors.
        scores: Returns the new scores of rows, float64.
        ranks: Int64 (n_items,), breaks ties: the smaller comes first.
        n_candidates: The length of a block.

    Returns:
        The same items, int64 (m,), and their new scores, float64 (m,).
    """
    found = np.empty(rows.size)
    ordered = np.empty_like(rows)
    for start in range(0, rows.size, n_candidates):
        block = rows[start : start + n_candidates]
        of_block = scores(block)
        order = np.lexsort((ranks.take(block), -of_block))
        ordered[start : start + block.size], found[start : start + block.size] = block[order], of_block[order]
    return ordered, found
