"""Products of sparse matrices with dense float32 tables, row by row.

Invariant: a row of a product is summed in the order of the row's entries, or part by part of its columns in that order,
so that threads change no bit.
"""

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.sparse.rows import SparseRows
from service.training.interactions import Float32, Float64, Int32, Int64

_BLOCK_ROWS = 256


def times_table(rows: SparseRows, table: Float32) -> Float32:
    """Return the product of a sparse matrix (n, m) with a table, float32 (m, k): float32 (n, k)."""
    product = np.zeros((rows.indptr.size - 1, table.shape[1]), dtype=np.float32)
    add_product(rows, table, product)
    return product


def add_product(rows: SparseRows, table: Float32, product: Float32) -> None:
    """Add a product to another one, float32 (n, k), entry by entry, as one pass over the columns of both would."""

    def multiply(start: int, stop: int) -> None:
        _multiply(start, stop, rows, table, product)

    threads.run_in_blocks(multiply, product.shape[0], _BLOCK_ROWS)


@compiled
def _multiply(
    start: int, stop: int, rows: SparseRows, table: Float32, product: Float32
) -> None:  # pragma: no cover  # compiled; tests/reference/pure_svd.py
    k = table.shape[1]
    for row in range(start, stop):
        own = product[row]
        for place in range(rows.indptr[row], rows.indptr[row + 1]):
            value = rows.values[place]
            other = table[rows.indices[place]]
            for f in range(k):
                own[f] += value * other[f]


def times_table_in_parts(rows: SparseRows, table: Float32, part: int) -> Float32:
    """Return the product of a sparse matrix (n, m) with a table, float32 (m, k), as a sum over parts of the columns.

    It is the sum of the products of each part of `part` columns, in their order, to the last bit: float32 (n, k).
    """
    n = rows.indptr.size - 1
    product = np.empty((n, table.shape[1]), dtype=np.float32)

    def multiply(start: int, stop: int) -> None:
        _multiply_in_parts(start, stop, rows, table, part, product)

    threads.run_in_blocks(multiply, n, _BLOCK_ROWS)
    return product


@compiled
def _multiply_in_parts(
    start: int, stop: int, rows: SparseRows, table: Float32, part: int, product: Float32
) -> None:  # pragma: no cover  # compiled; a test holds it to sums of products
    k = table.shape[1]
    of_part = np.empty(k, np.float32)
    for row in range(start, stop):
        own = product[row]
        own[:] = 0
        place, end = rows.indptr[row], rows.indptr[row + 1]
        while place < end:
            after = (rows.indices[place] // part + 1) * part
            of_part[:] = 0
            while place < end and rows.indices[place] < after:
                value = rows.values[place]
                other = table[rows.indices[place]]
                for f in range(k):
                    of_part[f] += value * other[f]
                place += 1
            # A sum that begins with 0 is never -0, so parts without entries change nothing.
            for f in range(k):
                own[f] += of_part[f]


def weighted_sums(indptr: Int64, indices: Int32, weights: Float64, table: Float32) -> Float32:
    """Add rows of a table, each times its weight, in double precision and in their order.

    Args:
        indptr: Int64 (n + 1,), where the entries of each sum begin and end.
        indices: Int32 (m,), the table's row of each entry.
        weights: Float64 (m,).
        table: Float32 (n_rows, k).

    Returns:
        float32 (n, k).
    """
    sums = np.empty((indptr.size - 1, table.shape[1]), dtype=np.float32)

    def add(start: int, stop: int) -> None:
        _add_weighted(start, stop, indptr, indices, weights, table, sums)

    threads.run_in_blocks(add, sums.shape[0], _BLOCK_ROWS)
    return sums


@compiled
def _add_weighted(
    start: int, stop: int, indptr: Int64, indices: Int32, weights: Float64, table: Float32, sums: Float32
) -> None:  # pragma: no cover  # compiled; a test holds it to the fold-in
    k = table.shape[1]
    total = np.empty(k)
    for row in range(start, stop):
        total[:] = 0
        for place in range(indptr[row], indptr[row + 1]):
            weight = weights[place]
            other = table[indices[place]]
            for f in range(k):
                total[f] += weight * np.float64(other[f])
        for f in range(k):
            sums[row, f] = np.float32(total[f])
