"""Tables of items from their attributes: ridge regression, learnt from the items that a model knows.

For features X (n, d), targets Y (n, t) and weights w the coefficients are (X'WX + r I)^-1 X'WY after both are centred
by their weighted means (the intercept is not shrunk). The ridge r is the one of a fixed range with the least
generalised cross-validation score of the whole table (Golub, Heath and Wahba, Technometrics 21(2), 1979), so that
attributes that say nothing of the factors lead to the mean item. The mapping from attributes to factors is that of
Gantner, Drumond, Freudenthaler, Rendle and Schmidt-Thieme (ICDM 2010), in closed form. Pure.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Float64 = NDArray[np.float64]

# As shares of the largest eigenvalue of X'WX.
_RIDGES: Final = 10.0 ** np.arange(-6, 1.5, 0.5)
# An item with so many interactions has half of the weight of one with any number.
_HALF_WEIGHT: Final = 10.0


def reliability(counts: Float64) -> Float64:
    """Return the weights of items in a regression of their factors, given the numbers of interactions: float64 (n,).

    Factors of rare items are noisy.
    """
    found: Float64 = counts / (counts + _HALF_WEIGHT)
    return found


class AttributeRegression:
    """A fitted regression.

    Args:
        features: Float64 CSR (n, d).
        targets: Float32 (n, t), finite.
        weights: Float64 (n,), at least 0, with a positive sum.

    Attributes:
        ridge: The chosen ridge.
    """

    def __init__(self, features: csr_array, targets: NDArray[np.float32], weights: Float64) -> None:
        share = weights / weights.sum()
        self._feature_mean: Float64 = np.asarray(features.T @ share)
        self._target_mean: Float64 = share @ targets.astype(np.float64)
        root = np.sqrt(weights)[:, np.newaxis]
        rows = csr_array(features.multiply(root))
        mean_row = self._feature_mean[np.newaxis]
        # X'WX of centred features, without the dense matrix of centred features.
        gram = (rows.T @ rows).toarray() - weights.sum() * (mean_row.T @ mean_row)
        centred = (targets - self._target_mean) * root
        products = np.asarray(rows.T @ centred) - mean_row.T @ (root.T @ centred)
        eigenvalues, vectors = np.linalg.eigh(gram)
        eigenvalues = np.maximum(eigenvalues, 0.0)
        rotated = vectors.T @ products
        self.ridge: float = _best_ridge(eigenvalues, rotated, float((centred**2).sum()), int((weights > 0).sum()))
        self._coefficients: Float64 = vectors @ (rotated / (eigenvalues + self.ridge)[:, np.newaxis])

    def predict(self, features: csr_array) -> Float64:
        """Return the targets of items by their features, CSR (m, d): float64 (m, t)."""
        predicted: Float64 = features @ self._coefficients
        predicted += self._target_mean - self._feature_mean @ self._coefficients
        return predicted


def _best_ridge(eigenvalues: Float64, rotated: Float64, total: float, n: int) -> float:
    """Return the ridge with the least generalised cross-validation score.

    Args:
        eigenvalues: Those of X'WX, (d,).
        rotated: X'WY in its eigenvectors, (d, t).
        total: The weighted sum of squares of Y.
        n: The number of items.
    """
    energy = (rotated**2).sum(axis=1)
    largest = max(float(eigenvalues.max(initial=0.0)), 1e-12)
    best, least = float(_RIDGES[-1]) * largest, np.inf
    for ridge in (_RIDGES * largest).tolist():
        shrunk = eigenvalues + ridge
        residual = total - float((energy * (2 / shrunk - eigenvalues / shrunk**2)).sum())
        freedom = n - 1 - float((eigenvalues / shrunk).sum())
        if freedom <= 0:
            continue
        score = residual / freedom**2
        if score < least:
            best, least = ridge, score
    return best
