"""Reference of the draws of `bayesian_mf`: with matrices as in the papers, in float64."""

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Float64


def draw_rows_slowly(
    stored: NDArray[np.bool_],
    ratings: Float64,
    other: Float64,
    prior_mean: Float64,
    precision: Float64,
    noise_precision: float,
    noise: Float64,
) -> Float64:
    """Draw every row of a side: float64 (n, k + 1).

    Args:
        stored: Bool (n, m), the rated pairs.
        ratings: Float64 (n, m), centred.
        other: Float64 (m, k + 1), factors and bias of the other side.
        prior_mean: Float64 (n, k + 1).
        precision: Float64 (k + 1, k + 1), that of the prior.
        noise_precision: That of a rating.
        noise: Float64 (n, k + 1), standard normal.
    """
    rows = np.empty_like(prior_mean)
    for row in range(len(rows)):
        mine = stored[row]
        features = np.column_stack([other[mine, :-1], np.ones(int(mine.sum()))])
        posterior = precision + noise_precision * features.T @ features
        right = precision @ prior_mean[row] + noise_precision * features.T @ (ratings[row, mine] - other[mine, -1])
        upper = np.linalg.cholesky(posterior).T
        rows[row] = np.linalg.solve(posterior, right) + np.linalg.solve(upper, noise[row])
    return rows


def link_slowly(stored: NDArray[np.bool_], right: Float64, precision: float) -> Float64:
    """Solve (F'F + precision) beta = right, where F[u, i] = |N(u)|^-1/2 for rated pairs."""
    link = stored / np.sqrt(np.maximum(stored.sum(axis=1, keepdims=True), 1))
    return np.linalg.solve(link.T @ link + precision * np.eye(stored.shape[1]), right)
