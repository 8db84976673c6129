"""Kernels of k nearest neighbours: similarities of rows, and predictions from the most similar ones.

The rows x of a rating matrix, users or items, are compared; y is the other side. The similarity of rows a and b is
taken over their n common columns, and is 0 for fewer than min_support:

    cosine             sum ab / sqrt(sum aa sum bb)
    msd                1 / (1 + mean of (a - b)^2)
    pearson            the correlation; 0 if one of them does not vary
    pearson_baseline   the cosine of residuals above mean and biases, times (n - 1) / (n - 1 + shrinkage)

as scikit-surprise defines them (Herlocker, Konstan, Borchers and Riedl, "An algorithmic framework for performing
collaborative filtering", SIGIR 1999; Koren, "Factor in the neighbors", ACM TKDD 4(1), 2010).

Invariant: a row is not its own neighbour, neighbours have a similarity above 0, and ties are broken by more common
columns, then by the smaller row. (Ties are frequent: two rows that agree in their only common column have the largest
similarity.) scikit-surprise breaks ties by the order of its training set, and counts a user as its own neighbour.

All rows together cost the sum of squared column lengths: a column that a million rows share costs 10^12 steps.
"""

from typing import Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbours.lists import BLOCK_ROWS, neighbour_lists, push_bounded
from service.training.algorithms.kernels.sparse.rows import PairGroups, SparseRows
from service.training.algorithms.kernels.threads import run_in_blocks
from service.training.interactions import Float32, Float64, Int32, Int64, Progress

SIMILARITIES: Final = ("cosine", "msd", "pearson", "pearson_baseline")
_MSD: Final = 1
_PEARSON: Final = 2
_PEARSON_BASELINE: Final = 3
# Relative rounding error of float64 sums: a smaller variance is none.
_ROUNDING: Final = 1e-12
# The heap prefers the smaller id, so an id is the row less this many times the common columns.
_PER_COLUMN: Final = 1 << 32


class ComparedRows(NamedTuple):
    """Rows, and the definition of their similarity.

    Attributes:
        by_x: The rows, (n_x, n_y).
        by_y: The transposed matrix, (n_y, n_x).
        similarity: An index of `SIMILARITIES`. For "pearson_baseline" the values are residuals.
        min_support: Minimum number of common columns.
        shrinkage: That of "pearson_baseline".
    """

    by_x: SparseRows
    by_y: SparseRows
    similarity: int
    min_support: int
    shrinkage: float


def nearest(compared: ComparedRows, n_kept: int, shrinkage: float, progress: Progress) -> csr_array:
    """Return the similarities of the best neighbours of each row: float32 CSR (n_x, n_x).

    Args:
        n_kept: Number of neighbours per row: those with the largest similarity times n / (n + shrinkage) for n common
            columns (Koren, section 2.2). Without the factor, rows with one common column would come first.
    """

    def write(start: int, stop: int, neighbours: Int32, weights: Float32, counts: Int64) -> None:
        _nearest(compared, shrinkage, start, stop, neighbours, weights, counts)

    return neighbour_lists(write, compared.by_x.indptr.size - 1, n_kept, progress)


def predict_pairs(
    compared: ComparedRows, values: Float32, pairs: PairGroups, y_rows: Int32, k: int, min_k: int
) -> Float64:
    """Return, for pairs (x, y), the mean of the neighbours' values for y, weighted by similarity.

    Args:
        values: Float32 (nnz,), in the order of `compared.by_y`.
        pairs: The pairs grouped by x.
        y_rows: Int32 (n,), the column of each pair.
        k: Maximum number of neighbours: the most similar ones that have column y.
        min_k: Minimum number of neighbours.

    Returns:
        float64 (n,), in the order of `y_rows`; 0 for fewer than min_k neighbours.
    """
    means = np.zeros(y_rows.size)

    def work(start: int, stop: int) -> None:
        _predict_pairs(compared, values, pairs, start, stop, y_rows, k, min_k, means)

    run_in_blocks(work, pairs.rows.size, BLOCK_ROWS)
    return means


@compiled
def _n_sums(compared: ComparedRows) -> int:  # pragma: no cover  # compiled
    """Return the number of sums that `_similarities` keeps per pair of rows."""
    return 2 if compared.similarity == _MSD else 6


@compiled
def _similarities(
    compared: ComparedRows, x: int, sums: Float64, touched: Int32, row: Float64, shared: Int64
) -> int:  # pragma: no cover  # compiled; tests/reference/knn.py
    """Compare one row with all rows that share a column with it.

    Args:
        sums: Float64 (n_x, `_n_sums`), zeros before and after.
        touched: Output, int32 (n_x + 1,): the rows that share a column, x included.
        row: Output, float64 (n_x,): their similarities; 0 for x.
        shared: Output, int64 (n_x,): their numbers of common columns.

    Returns:
        The number of touched rows.
    """
    by_x, by_y = compared.by_x, compared.by_y
    n_touched = 0
    for p in range(by_x.indptr[x], by_x.indptr[x + 1]):
        y, a = by_x.indices[p], np.float64(by_x.values[p])
        # Keeps v in `touched` on its first common column; a branch would be slower.
        if compared.similarity == _MSD:
            for q in range(by_y.indptr[y], by_y.indptr[y + 1]):
                v, difference = by_y.indices[q], a - by_y.values[q]
                touched[n_touched] = v
                n_touched += sums[v, 0] == 0
                sums[v, 0] += 1
                sums[v, 1] += difference * difference
        else:
            for q in range(by_y.indptr[y], by_y.indptr[y + 1]):
                v, b = by_y.indices[q], np.float64(by_y.values[q])
                touched[n_touched] = v
                n_touched += sums[v, 0] == 0
                sums[v, 0] += 1
                sums[v, 1] += a * b
                sums[v, 2] += a * a
                sums[v, 3] += b * b
                sums[v, 4] += a
                sums[v, 5] += b
    for t in range(n_touched):
        v = touched[t]
        n = sums[v, 0]
        row[v], shared[v] = 0.0, n
        if v != x and n >= compared.min_support:
            if compared.similarity == _MSD:
                row[v] = 1 / (1 + sums[v, 1] / n)
            elif compared.similarity == _PEARSON:
                a_varies = n * sums[v, 2] - sums[v, 4] * sums[v, 4]
                b_varies = n * sums[v, 3] - sums[v, 5] * sums[v, 5]
                if a_varies > _ROUNDING * n * sums[v, 2] and b_varies > _ROUNDING * n * sums[v, 3]:
                    row[v] = (n * sums[v, 1] - sums[v, 4] * sums[v, 5]) / np.sqrt(a_varies * b_varies)
            elif sums[v, 2] > 0 and sums[v, 3] > 0:
                row[v] = sums[v, 1] / np.sqrt(sums[v, 2] * sums[v, 3])
                if compared.similarity == _PEARSON_BASELINE:
                    row[v] *= (n - 1) / (n - 1 + compared.shrinkage) if n > 1 else 0.0
        sums[v] = 0
    return n_touched


@compiled
def _nearest(
    compared: ComparedRows, shrinkage: float, start: int, stop: int, neighbours: Int32, weights: Float32, counts: Int64
) -> None:  # pragma: no cover  # compiled; tests/reference/knn.py
    """Write the neighbours of rows start to stop; see `neighbours.lists.WriteLists`."""
    n_x = compared.by_x.indptr.size - 1
    sums = np.zeros((n_x, _n_sums(compared)))
    touched, row, shared = np.empty(n_x + 1, np.int32), np.zeros(n_x), np.empty(n_x, np.int64)
    keys, best = np.empty(neighbours.shape[1]), np.empty(neighbours.shape[1], np.int64)
    for x in range(start, stop):
        size = 0
        for t in range(_similarities(compared, x, sums, touched, row, shared)):
            v = touched[t]
            if row[v] > 0:
                key = row[v] * shared[v] / (shared[v] + shrinkage)
                if size < keys.size or key >= keys[0]:
                    size = push_bounded(keys, best, size, key, v - shared[v] * _PER_COLUMN)
        for n in range(size):
            v = best[n] % _PER_COLUMN
            neighbours[x - start, n], weights[x - start, n] = v, row[v]
        counts[x - start] = size


@compiled
def _predict_pairs(
    compared: ComparedRows,
    values: Float32,
    pairs: PairGroups,
    start: int,
    stop: int,
    y_rows: Int32,
    k: int,
    min_k: int,
    means: Float64,
) -> None:  # pragma: no cover  # compiled; tests/reference/knn.py
    """Write the means for the pairs of `pairs.rows[start:stop]`."""
    by_y = compared.by_y
    n_x = compared.by_x.indptr.size - 1
    sums = np.zeros((n_x, _n_sums(compared)))
    touched, row, shared = np.empty(n_x + 1, np.int32), np.zeros(n_x), np.empty(n_x, np.int64)
    longest = 1
    for n in range(pairs.bounds[start], pairs.bounds[stop]):
        y = y_rows[pairs.order[n]]
        longest = max(longest, by_y.indptr[y + 1] - by_y.indptr[y])
    keys, best = np.empty(min(k, longest)), np.empty(min(k, longest), np.int64)
    for m in range(start, stop):
        n_touched = _similarities(compared, pairs.rows[m], sums, touched, row, shared)
        for n in range(pairs.bounds[m], pairs.bounds[m + 1]):
            y = y_rows[pairs.order[n]]
            first = by_y.indptr[y]
            size = 0
            for place in range(by_y.indptr[y + 1] - first):
                v = by_y.indices[first + place]
                if row[v] > 0 and (size < keys.size or row[v] >= keys[0]):
                    size = push_bounded(keys, best, size, row[v], place - shared[v] * _PER_COLUMN)
            if size >= min_k:
                total, weight = 0.0, 0.0
                for s in range(size):
                    total += keys[s] * values[first + best[s] % _PER_COLUMN]
                    weight += keys[s]
                means[pairs.order[n]] = total / weight
        for t in range(n_touched):
            row[touched[t]] = 0
