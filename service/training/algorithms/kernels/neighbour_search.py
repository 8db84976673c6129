"""Who resembles whom, and what those who resemble most say: the kernels of k nearest neighbours.

What is compared are the rows x of a matrix of ratings, users or items; y is the other side. The similarity of two rows
a and b is taken over the n columns that both have, and is 0 for fewer than min_support of them:

    cosine             sum ab / sqrt(sum aa sum bb)
    msd                1 / (1 + mean of (a - b)^2)
    pearson            their correlation; 0 where one of them does not vary
    pearson_baseline   the cosine of what ratings are above mean and biases, shrunk: times (n - 1) / (n - 1 + shrinkage)

(Herlocker, Konstan, Borchers and Riedl, "An algorithmic framework for performing collaborative filtering", SIGIR 1999;
Koren, "Factor in the neighbors", ACM TKDD 4(1), 2010). These are scikit-surprise's definitions.

Invariant: nothing is its own neighbour, neighbours have a similarity above 0, and of equally similar ones those that
share more columns come first, then those with the smaller row. (There are many: two rows that share one column and
agree on it are as similar as can be.) scikit-surprise takes them in the order of its training set instead, and lets a
user speak for himself where a pair of the training set is predicted.

A row costs the sum over its columns of how many others have them, so that all rows cost the sum over columns of their
squared lengths: one column that a million rows share costs 10^12 steps.
"""

from typing import Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from service.training.algorithms.kernels import rowwise
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.rowwise import Float64, Grouped, Rows, offer
from service.training.algorithms.kernels.threads import in_blocks
from service.training.interactions import Float32, Int32, Int64, Progress

SIMILARITIES: Final = ("cosine", "msd", "pearson", "pearson_baseline")
_MSD: Final = 1
_PEARSON: Final = 2
_PEARSON_BASELINE: Final = 3
# What float64 sums of products may leave over where there is no variance at all.
_ROUNDING: Final = 1e-12
# What is offered is named by its place less so many times the columns shared: of equal keys the smaller name is better.
_PER_COLUMN: Final = 1 << 32


class Compared(NamedTuple):
    """What is compared, and how.

    Attributes:
        by_x: What each row x has, (n_x, n_y).
        by_y: The same by column, (n_y, n_x).
        similarity: A position in `SIMILARITIES`. For "pearson_baseline" the values are what is above mean and biases.
        min_support: How many columns two rows share at least to be similar at all.
        shrinkage: Of "pearson_baseline".
    """

    by_x: Rows
    by_y: Rows
    similarity: int
    min_support: int
    shrinkage: float


def nearest(compared: Compared, n_kept: int, shrinkage: float, progress: Progress) -> csr_array:
    """Return the neighbours of each row that are worth keeping: float32 CSR (n_x, n_x), the similarities.

    Args:
        compared: The rows.
        n_kept: How many at most: those with the largest similarity times n / (n + shrinkage), where n columns are
            shared (Koren, section 2.2). The most similar themselves share one column and agree on it, and say next to
            nothing.
        shrinkage: See there.
        progress: Told of the rows.
    """

    def fill(start: int, stop: int, names: Int32, weights: Float32, counts: Int64) -> None:
        _nearest(compared, shrinkage, start, stop, names, weights, counts)

    return rowwise.lists(fill, compared.by_x.indptr.size - 1, n_kept, progress)


def said(compared: Compared, values: Float32, pairs: Grouped, y_rows: Int32, k: int, min_k: int) -> Float64:
    """Return the mean of what the neighbours of x have for y, weighted by similarity.

    Args:
        compared: The rows.
        values: Float32 (nnz,), what those who have a column say, in the order of `compared.by_y`.
        pairs: The pairs by their x.
        y_rows: Int32 (n,), the column of each pair.
        k: How many of the most similar that have the column count.
        min_k: How many it takes for a mean.

    Returns:
        float64 (n,), in the order of `y_rows`; 0 where there are fewer than min_k neighbours.
    """
    means = np.zeros(y_rows.size)

    def work(start: int, stop: int) -> None:
        _said(compared, values, pairs, start, stop, y_rows, k, min_k, means)

    in_blocks(work, pairs.rows.size, rowwise.BLOCK_ROWS)
    return means


@compiled
def _n_sums(compared: Compared) -> int:  # pragma: no cover  # compiled
    """Return how many sums `_similarities` keeps of two rows."""
    return 2 if compared.similarity == _MSD else 6


@compiled
def _similarities(
    compared: Compared, x: int, sums: Float64, touched: Int32, row: Float64, shared: Int64
) -> int:  # pragma: no cover  # compiled; tests hold it to the reference
    """Compare one row with all that share a column with it.

    Args:
        compared: The rows.
        x: The row.
        sums: Float64 (n_x, `_n_sums`), zeros before and after.
        touched: Int32 (n_x + 1,), for the rows that share a column, x itself among them.
        row: Float64 (n_x,), for their similarities; x's own is 0.
        shared: Int64 (n_x,), for how many columns they share.

    Returns:
        How many were touched.
    """
    by_x, by_y = compared.by_x, compared.by_y
    n_touched = 0
    for p in range(by_x.indptr[x], by_x.indptr[x + 1]):
        y, a = by_x.indices[p], np.float64(by_x.values[p])
        # Whoever meets x for the first time stays in `touched`; written without a branch, this is nearly free.
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
    compared: Compared, shrinkage: float, start: int, stop: int, names: Int32, weights: Float32, counts: Int64
) -> None:  # pragma: no cover  # compiled; tests hold it to the reference
    """Write the neighbours of rows start to stop; see `rowwise.Fill`."""
    n_x = compared.by_x.indptr.size - 1
    sums = np.zeros((n_x, _n_sums(compared)))
    touched, row, shared = np.empty(n_x + 1, np.int32), np.zeros(n_x), np.empty(n_x, np.int64)
    keys, best = np.empty(names.shape[1]), np.empty(names.shape[1], np.int64)
    for x in range(start, stop):
        size = 0
        for t in range(_similarities(compared, x, sums, touched, row, shared)):
            v = touched[t]
            if row[v] > 0:
                key = row[v] * shared[v] / (shared[v] + shrinkage)
                if size < keys.size or key >= keys[0]:
                    size = offer(keys, best, size, key, v - shared[v] * _PER_COLUMN)
        for n in range(size):
            v = best[n] % _PER_COLUMN
            names[x - start, n], weights[x - start, n] = v, row[v]
        counts[x - start] = size


@compiled
def _said(
    compared: Compared,
    values: Float32,
    pairs: Grouped,
    start: int,
    stop: int,
    y_rows: Int32,
    k: int,
    min_k: int,
    means: Float64,
) -> None:  # pragma: no cover  # compiled; tests hold it to the reference
    """Write the means of the pairs of `pairs.rows[start:stop]`."""
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
                    size = offer(keys, best, size, row[v], place - shared[v] * _PER_COLUMN)
            if size >= min_k:
                total, weight = 0.0, 0.0
                for s in range(size):
                    total += keys[s] * values[first + best[s] % _PER_COLUMN]
                    weight += keys[s]
                means[pairs.order[n]] = total / weight
        for t in range(n_touched):
            row[touched[t]] = 0
