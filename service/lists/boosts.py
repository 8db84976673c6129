"""Boosts: factors of the scores of items that match filters.

A factor f above 1 makes a score better and one below 1 makes it worse, whatever its sign: a score s becomes s * f if it
is not negative, else s / f.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.lists.filters.masks import FilterMask
from service.models.neighbourhood import Scores
from service.models.scoring import Rows


class BoostFactors:
    """The factor of every item: the product of the factors of its boosts."""

    def __init__(self, n_items: int, boosts: Sequence[tuple[FilterMask, float]]) -> None:
        self._factors = np.ones(n_items)
        for mask, factor in boosts:
            self._factors[mask.rows] *= factor
        self._changed = np.flatnonzero(self._factors != 1)

    def boost_all(self, scores: Scores) -> None:
        """Boost the scores of all items, float64 (n_items,), in place.

        A boosted upper bound of a score is an upper bound of the boosted score, because products and quotients are
        rounded in order.
        """
        scores[self._changed] = _boosted(scores[self._changed], self._factors[self._changed])

    def boosted(self, rows: Rows, scores: Scores) -> Scores:
        """Return the boosted scores of some rows, float64 (m,)."""
        return _boosted(scores, self._factors[rows])


def _boosted(scores: Scores, factors: NDArray[np.float64]) -> Scores:
    return np.where(scores >= 0, scores * factors, scores / factors)
