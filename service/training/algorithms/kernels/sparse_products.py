"""Products of sparse matrices with dense float32 tables, row by row.

Invariant: a row of a product is summed in the order of the row's entries, so that threads change no bit.
"""

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.sparse_rows import SparseRows
from service.training.interactions import Float32

_BLOCK_ROWS = 256


def times_table(rows: SparseRows, table: Float32) -> Float32:
    """Return the product of a sparse matrix (n, m) with a table, float32 (m, k): float32 (n, k)."""
    n = rows.indptr.size - 1
    product = np.empty((n, table.shape[1]), dtype=np.float32)

    def multiply(start: int, stop: int) -> None:
        _multiply(start, stop, rows, table, product)

    threads.run_in_blocks(multiply, n, _BLOCK_ROWS)
    return product


@compiled
def _multiply(
    start: int, stop: int, rows: SparseRows, table: Float32, product: Float32
) -> None:  # pragma: no cover  # compiled; tests/reference/pure_svd.py
    k = table.shape[1]
    for row in range(start, stop):
        own = product[row]
        own[:] = 0
        for place in range(rows.indptr[row], rows.indptr[row + 1]):
            value = rows.values[place]
            other = table[rows.indices[place]]
            for f in range(k):
                own[f] += value * other[f]
