"""What the first users who like a new item say of it, beside its attributes. Pure.

In a model with factors that ranks, an item's factors are a linear function of the mean of the factors of those who like
it, which a ridge regression learns from the model's own items. The estimate from n users and the one from attributes
are averaged with the weights n and c, where c is the variance between such users over that between the attributes'
estimates and the factors (a posterior mean, were both normal). The mean says nothing of how many will like the item, so
the estimate gets the length of the one from attributes times the root of 1 + n/c: longer factors place an item higher.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.catalogue.attribute_regression import AttributeRegression, reliability
from service.models.snapshot import ModelSnapshot

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# A sample of users suffices, and bounds the time.
_SAMPLED_USERS: Final = 20_000
_MIN_LIKING: Final = 5
_TINY: Final = 1e-12


class RaterFactors:
    """The regression from users to item factors.

    Args:
        model: A model with factors, that ranks.
        targets: Float32 (n_items, k), the factors of its items, or those of items as inputs.
        expected: Float64 (n_items, k), what attributes let expect of them.
    """

    def __init__(self, model: ModelSnapshot, targets: NDArray[np.float32], expected: Float64) -> None:
        n_users = len(model.users)
        users: Int64 = np.arange(n_users)
        if n_users > _SAMPLED_USERS:
            users = np.sort(np.random.default_rng(0).choice(n_users, _SAMPLED_USERS, replace=False))
        liked = _liked(model, users)
        self._user_factors = model.user_factors
        factors = model.user_factors[users].astype(np.float64)
        counts: Float64 = np.asarray(liked.sum(axis=0), dtype=np.float64).ravel()
        weights = np.where(counts >= _MIN_LIKING, reliability(counts), 0.0)
        self._regression: AttributeRegression | None = None
        self.c: float = 1.0
        if not weights.sum():
            return
        by_item = csr_array(liked.T)
        per_item = 1 / np.maximum(counts, 1)[:, np.newaxis]
        self._regression = AttributeRegression(csr_array((by_item @ factors) * per_item), targets, weights)
        estimates = self._regression.predict(csr_array(factors))
        squares = np.asarray(by_item @ (estimates**2).sum(axis=1)) * per_item.ravel()
        between_users = squares - (((by_item @ estimates) * per_item) ** 2).sum(axis=1)
        between_items = ((expected - targets) ** 2).sum(axis=1)
        self.c = float(weights @ np.maximum(between_users, 0) / max(float(weights @ between_items), _TINY))
        self.c = min(max(self.c, 0.1), 100.0)

    def refined(self, expected: Float64, user_rows: Int64) -> Float64:
        """Return the factors of an item, float64 (k,), from those that its attributes let expect and who likes it."""
        n = user_rows.size
        if self._regression is None or not n:
            return expected
        mean = self._user_factors[user_rows].mean(axis=0, dtype=np.float64)
        estimate = self._regression.predict(csr_array(mean[np.newaxis]))[0]
        length = float(np.linalg.norm(expected)) or float(np.linalg.norm(estimate))
        estimate *= length * growth(n, self.c) / max(float(np.linalg.norm(estimate)), _TINY)
        refined: Float64 = (self.c * expected + n * estimate) / (self.c + n)
        return refined


def growth(n: int, c: float) -> float:
    """Return how much longer n users make what attributes let expect."""
    return float(np.sqrt(1 + n / c))


def co_liked(model: ModelSnapshot, user_rows: Int64, n_nearest: int) -> tuple[Int64, Float64]:
    """Return the items that the users like most specifically, and the share of each.

    The share of an item is proportional to how many of the users like it, over the root of how many users have it.

    Returns:
        Item rows, int64 (m,), at most `n_nearest`, and shares, float64 (m,), that sum to 1.
    """
    found: Float64 = np.asarray(_liked(model, user_rows).sum(axis=0)).ravel().astype(np.float64)
    found /= np.sqrt(np.maximum(np.bincount(model.history.indices, minlength=found.size), 1))
    rows = np.lexsort((np.arange(found.size), -found))[:n_nearest]
    rows = rows[found[rows] > 0]
    return rows, found[rows] / max(float(found[rows].sum()), _TINY)


def _liked(model: ModelSnapshot, user_rows: Int64) -> csr_array:
    """Return what users like: float64 CSR (m, n_items) of ones; of ratings those from the middle of the scale on."""
    chosen: csr_array = model.history[user_rows]
    scale = model.rating_scale
    is_liked = np.ones(chosen.data.size, dtype=bool) if scale is None else chosen.data >= scale.middle
    liked = csr_array((is_liked.astype(np.float64), chosen.indices, chosen.indptr), shape=chosen.shape)
    liked.eliminate_zeros()
    return liked
