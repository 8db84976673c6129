"""Draws of Bayesian matrix factorisation: a side's rows given the other side, and the prior of the rows."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.training.algorithms.kernels.compiled import compiled
from service.training.interactions import Float32, Float64, Int32, Int64

# Weight of the priors, in ratings or rows.
PRIOR_ROWS: Final = 2.0
BLOCK_ROWS: Final = 256  # rows per block of a thread


class SideRatings(NamedTuple):
    """Ratings grouped by the rows of one side, users or items.

    Attributes:
        indptr: Int64 (n_rows + 1,), start of each row's ratings.
        others: Int32 (n,), rows of the other side, ascending within a row.
        ratings: Float32 (n,), standardised.
    """

    indptr: Int64
    others: Int32
    ratings: Float32


class RowPrior(NamedTuple):
    """The normal distribution of one side's rows: precision float64 (w, w) and mean float64 (w,)."""

    precision: Float64
    mean: Float64


def side_ratings(matrix: csr_array, mean: float, scale: float) -> SideRatings:
    """Standardise and group ratings by the rows of a CSR matrix."""
    # If all ratings are equal, the model is scaled to 0 at the end.
    ratings = ((matrix.data.astype(np.float64) - mean) / (scale or 1.0)).astype(np.float32)
    return SideRatings(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False), ratings)


def draw_prior(table: NDArray[np.floating[Any]], rng: np.random.Generator) -> RowPrior:
    """Draw the prior of a table's rows, float (n, w), given the rows: Gaussian-Wishart (Salakhutdinov and Mnih)."""
    n, width = table.shape
    mean = table.mean(axis=0, dtype=np.float64)
    centred = table - mean.astype(table.dtype)
    scatter = (centred.T @ centred).astype(np.float64)
    weight = PRIOR_ROWS + n
    inverse = np.eye(width) + scatter + (PRIOR_ROWS * n / weight) * np.outer(mean, mean)
    root = np.linalg.cholesky(np.linalg.inv((inverse + inverse.T) / 2))
    # Bartlett decomposition of a Wishart matrix.
    lower = np.tril(rng.standard_normal((width, width)), -1)
    lower[np.diag_indices(width)] = np.sqrt(rng.chisquare(width + n - np.arange(width)))
    root = root @ lower
    precision = root @ root.T
    deviation = np.linalg.solve(root.T, rng.standard_normal(width))
    return RowPrior(precision, n / weight * mean + deviation / np.sqrt(weight))


@compiled
def draw_rows(
    start: int,
    stop: int,
    side: SideRatings,
    features: Float32,
    offsets: Float32,
    prior: Float32,
    precision: Float64,
    noise_precision: float,
    noise: Float32,
    table: Float32,
) -> None:  # pragma: no cover  # compiled; tests/reference/bayesian_mf.py
    """Draw rows start to stop of a table given the ratings and the other side."""
    indptr, others, ratings = side
    width = table.shape[1]
    products = np.empty((width, width), np.float32)
    upper = np.empty((width, width), np.float64)
    sums = np.empty(width, np.float32)
    x = np.empty(width, np.float64)
    for row in range(start, stop):
        products[:] = 0
        sums[:] = 0
        for n in range(indptr[row], indptr[row + 1]):
            other = others[n]
            residual = ratings[n] - offsets[other]
            for f in range(width):
                feature = features[other, f]
                sums[f] += feature * residual
                for g in range(width):
                    products[f, g] += feature * features[other, g]
        for f in range(width):
            x[f] = prior[row, f] + noise_precision * sums[f]
            for g in range(width):
                upper[f, g] = precision[f, g] + noise_precision * products[f, g]
        # Cholesky's factor U of the precision, U'U, and U'^-1 of the right side, column by column.
        for f in range(width):
            inverse = 1.0 / np.sqrt(upper[f, f])
            for g in range(f, width):
                upper[f, g] *= inverse
            x[f] *= inverse
            for g in range(f + 1, width):
                factor = upper[f, g]
                x[g] -= factor * x[f]
                for h in range(g, width):
                    upper[g, h] -= factor * upper[f, h]
        # U^-1 of noise of unit variance has the covariance of the row.
        for f in range(width - 1, -1, -1):
            value = x[f] + noise[row, f]
            for g in range(f + 1, width):
                value -= upper[f, g] * x[g]
            x[f] = value / upper[f, f]
        for f in range(width):
            table[row, f] = x[f]


@compiled
def squared_errors(
    start: int,
    stop: int,
    side: SideRatings,
    table: Float32,
    other_table: Float32,
    errors: Float64,
) -> None:  # pragma: no cover  # compiled; tests/reference/bayesian_mf.py
    """Write the sum of squared errors of each of rows start to stop."""
    indptr, others, ratings = side
    k = table.shape[1] - 1
    for row in range(start, stop):
        total = 0.0
        for n in range(indptr[row], indptr[row + 1]):
            other = others[n]
            residual = float(ratings[n]) - table[row, k] - other_table[other, k]
            for f in range(k):
                residual -= float(table[row, f]) * other_table[other, f]
            total += residual * residual
        errors[row] = total
