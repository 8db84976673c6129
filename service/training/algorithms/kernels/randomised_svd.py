"""The largest singular values of a sparse matrix and their right singular vectors, by a randomised method.

A random table of a few more columns than wanted is multiplied by the matrix and its transpose in turns, which turns its
columns towards the singular vectors of the largest singular values; the small problem within the space that they span
is solved exactly (N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness: probabilistic
algorithms for constructing approximate matrix decompositions", SIAM Review 53(2), 2011: algorithms 4.4 and 5.1).
tests/reference/pure_svd.py is the slow, exact equivalent.

Tables are orthonormalised through the eigenvectors of their Gramian, in float64. That loses directions whose singular
value is below about 1e-7 of the largest; the rounding of float32 hides them in any case.

Invariant: the result depends on matrix, size and generator alone. Sums over rows are added in an order that depends on
the number of rows, and linear algebra runs on one thread per block.
"""

from typing import Final, NamedTuple

import numpy as np
import scipy.linalg
from scipy.sparse import csr_array

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.sparse_products import times_table
from service.training.algorithms.kernels.sparse_rows import sparse_rows
from service.training.interactions import Float32, Float64, Progress

# Halko, Martinsson and Tropp, section 4: 5 to 10 extra columns suffice, and slowly decaying singular values need more.
_EXTRA_COLUMNS: Final = 16
_POWER_ITERATIONS: Final = 3
_STEPS: Final = _POWER_ITERATIONS + 2
_TABLE_ROWS: Final = 2048  # rows of a table multiplied at a time
_MAX_PARTS: Final = 8  # partial sums over a table
# Squares of singular values below this share of the largest are rounding.
_NEGLIGIBLE: Final = 1e-13


class RightSingularVectors(NamedTuple):
    """The factors of a matrix (n, m) of rank k or more.

    Attributes:
        values: Float64 (k,), singular values, descending; all above 0.
        vectors: Float32 (m, k), orthonormal columns.
    """

    values: Float64
    vectors: Float32


def right_singular_vectors(
    matrix: csr_array, k: int, rng: np.random.Generator, progress: Progress
) -> RightSingularVectors:
    """Find the k largest singular values of a matrix, fewer if its rank is lower, with their right singular vectors.

    Args:
        matrix: Float32 CSR (n, m) with int32 indices.
        k: Number of vectors.
        rng: Draws the first table.
        progress: Called with the stage "fit" and the steps done, from 0 on.
    """
    progress("fit", 0, _STEPS)
    n, m = matrix.shape
    rows = sparse_rows(matrix)
    columns = sparse_rows(_sorted_transpose(matrix))
    width = min(k + _EXTRA_COLUMNS, n, m)
    with threads.one_blas_thread():
        basis = orthonormal(times_table(columns, rng.standard_normal((n, width), dtype=np.float32)))
        for iteration in range(_POWER_ITERATIONS):
            progress("fit", iteration + 1, _STEPS)
            basis = orthonormal(times_table(columns, orthonormal(times_table(rows, basis))))
        progress("fit", _POWER_ITERATIONS + 1, _STEPS)
        squares, directions = _eigen(gramian(times_table(rows, basis)))
        kept = min(k, squares.size)
        vectors = multiplied(basis, directions[:, :kept].astype(np.float32))
        progress("fit", _STEPS, _STEPS)
    return RightSingularVectors(np.sqrt(squares[:kept]), vectors)


def orthonormal(table: Float32) -> Float32:
    """Return orthonormal columns that span those of a table, float32 (n, k); fewer columns if some depend on others."""
    squares, directions = _eigen(gramian(table))
    return multiplied(table, (directions / np.sqrt(squares)).astype(np.float32))


def gramian(table: Float32) -> Float64:
    """Return table' table, float64 (k, k)."""
    n, k = table.shape
    part = max(_TABLE_ROWS, -(-n // _MAX_PARTS))
    parts = np.zeros((-(-n // part), k, k))

    def add(start: int, stop: int) -> None:
        for begin in range(start, stop, _TABLE_ROWS):
            rows = table[begin : min(begin + _TABLE_ROWS, stop)].astype(np.float64)
            parts[start // part] += rows.T @ rows

    threads.run_in_blocks(add, n, part)
    total: Float64 = parts.sum(axis=0)
    return total


def multiplied(table: Float32, square: Float32) -> Float32:
    """Return the product of a table, float32 (n, k), with a small matrix, float32 (k, m), block by block."""
    product = np.empty((table.shape[0], square.shape[1]), dtype=np.float32)

    def multiply(start: int, stop: int) -> None:
        np.matmul(table[start:stop], square, out=product[start:stop])

    threads.run_in_blocks(multiply, table.shape[0], _TABLE_ROWS)
    return product


def _eigen(gram: Float64) -> tuple[Float64, Float64]:
    """Return the eigenvalues of a Gramian, descending, without negligible ones, and their eigenvectors as columns."""
    squares, directions = scipy.linalg.eigh(gram, check_finite=False, driver="evd")
    squares, directions = squares[::-1], directions[:, ::-1]
    n_kept = int(np.count_nonzero(squares > _NEGLIGIBLE * max(float(squares[0]), np.finfo(np.float64).tiny)))
    return squares[:n_kept], directions[:, :n_kept]


def _sorted_transpose(matrix: csr_array) -> csr_array:
    transpose = matrix.T.tocsr()
    transpose.sort_indices()
    transpose.indices = transpose.indices.astype(np.int32, copy=False)
    return transpose
