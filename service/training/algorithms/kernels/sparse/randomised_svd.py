"""The largest singular values of a sparse matrix and their right singular vectors, by a randomised method.

A random table of a few more columns than wanted is multiplied by the matrix and its transpose in turns, which turns its
columns towards the singular vectors of the largest singular values; the small problem within the space that they span
is solved exactly (N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness: probabilistic
algorithms for constructing approximate matrix decompositions", SIAM Review 53(2), 2011: algorithms 4.4 and 5.1).
tests/reference/pure_svd.py is the slow, exact equivalent.

Tables are orthonormalised through the eigenvectors of their Gramian, in float64. That loses directions whose singular
value is below about 1e-7 of the largest; the rounding of float32 hides them in any case.

Invariant: the result depends on matrix, size and generator alone. Sums over rows are added part by part, in parts that
depend on the number of rows (`row_parts`), and linear algebra runs on one thread per block. So the result
is the same whether `Products` are computed by the threads of this process or by many workers.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

import numpy as np
import scipy.linalg
from scipy.sparse import csr_array

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.sparse import row_parts
from service.training.algorithms.kernels.sparse.products import times_table, times_table_in_parts
from service.training.algorithms.kernels.sparse.row_parts import BLOCK_ROWS
from service.training.algorithms.kernels.sparse.rows import sparse_rows
from service.training.interactions import Float32, Float64, Progress

# Halko, Martinsson and Tropp, section 4: 5 to 10 extra columns suffice, and slowly decaying singular values need more.
_EXTRA_COLUMNS: Final = 16
_POWER_ITERATIONS: Final = 3
STEPS: Final = _POWER_ITERATIONS + 2
"""The last step finds the vectors; those before it turn the basis, of which they are a part."""

_SUMS_AT_ONCE: Final = 8  # Gramians of parts in memory
# Squares of singular values below this share of the largest are rounding.
_NEGLIGIBLE: Final = 1e-13

Table = TypeVar("Table")


class RightSingularVectors(NamedTuple):
    """The factors of a matrix (n, m) of rank k or more.

    Attributes:
        values: Float64 (k,), singular values, descending; all above 0.
        vectors: Float32 (m, k), orthonormal columns.
    """

    values: Float64
    vectors: Float32


class Turned(NamedTuple):
    """The state after some steps.

    Attributes:
        n_steps: At least 1, at most `STEPS`.
        table: Float32 (m, k), the basis, or in the end the vectors.
        values: Float64 (k,), in the end the singular values; empty before.
    """

    n_steps: int
    table: Float32
    values: Float64

    @property
    def found(self) -> RightSingularVectors | None:
        """What was found in the end; None before."""
        return RightSingularVectors(self.values, self.table) if self.n_steps == STEPS else None


Keep = Callable[[int, Callable[[], Float32], Float64], None]
"""Called after a step with its number, with a function that returns the table, and with the values, as in `Turned`."""


def kept_nowhere(n_steps: int, table: Callable[[], Float32], values: Float64) -> None:
    """Keep nothing."""


class Products(Protocol[Table]):
    """The products of a matrix (n, m) with tables, of n or of m rows, wherever these are.

    A table is given up by the operation that names it as `given`.
    """

    shape: tuple[int, int]

    def random(self, width: int, rng: np.random.Generator) -> Table:
        """Draw a table (n, width) of the standard normal distribution, row by row."""

    def placed(self, array: Float32) -> Table:
        """Return an array (m, k) as a table."""

    def times(self, table: Table) -> Table:
        """Return the product of the matrix with a table (m, k)."""

    def transpose_times(self, given: Table) -> Table:
        """Return the product of the transpose with a table (n, k)."""

    def gramian(self, table: Table) -> Float64:
        """Return table' table, float64 (k, k)."""

    def multiplied(self, given: Table, square: Float32) -> Table:
        """Return the product of a table (any, k) with a small matrix, float32 (k, l)."""

    def array(self, table: Table) -> Float32:
        """Return a table (m, k) as an array."""

    def give_up(self, given: Table) -> None:
        """Free a table."""


class ThreadedProducts:
    """Products by the threads of this process.

    Args:
        matrix: Float32 CSR (n, m) with int32 indices.
    """

    def __init__(self, matrix: csr_array) -> None:
        self.shape: tuple[int, int] = matrix.shape
        self._rows: Final = sparse_rows(matrix)
        self._columns: Final = sparse_rows(sorted_transpose(matrix))

    def random(self, width: int, rng: np.random.Generator) -> Float32:
        """Draw a table."""
        return rng.standard_normal((self.shape[0], width), dtype=np.float32)

    def placed(self, array: Float32) -> Float32:
        """Return the array."""
        return array

    def times(self, table: Float32) -> Float32:
        """Multiply by the matrix."""
        return times_table(self._rows, table)

    def transpose_times(self, given: Float32) -> Float32:
        """Multiply by the transpose."""
        return times_table_in_parts(self._columns, given, row_parts.summed_rows(self.shape[0]))

    def gramian(self, table: Float32) -> Float64:
        """Return a Gramian."""
        return gramian(table)

    def multiplied(self, given: Float32, square: Float32) -> Float32:
        """Multiply by a small matrix."""
        return multiplied(given, square)

    def array(self, table: Float32) -> Float32:
        """Return the table."""
        return table

    def give_up(self, given: Float32) -> None:
        """Leave it to the garbage collector."""


def right_singular_vectors(
    products: Products[Table],
    k: int,
    rng: np.random.Generator,
    progress: Progress,
    *,
    begun: Turned | None = None,
    keep: Keep = kept_nowhere,
) -> RightSingularVectors:
    """Find the k largest singular values of a matrix, fewer if its rank is lower, with their right singular vectors.

    Args:
        products: Those of the matrix (n, m).
        k: Number of vectors.
        rng: Draws the first table, unless there is a basis.
        progress: Called with the stage "fit" and the steps done, from 0 on.
        begun: A state of the same matrix, size and generator, without vectors, to continue from.
        keep: Called after each step.
    """
    none = np.zeros(0)
    width = min(k + _EXTRA_COLUMNS, *products.shape)
    progress("fit", 0 if begun is None else begun.n_steps, STEPS)
    with threads.one_blas_thread():
        if begun is not None:
            n_steps, basis = begun.n_steps, products.placed(begun.table)
        else:
            n_steps, basis = 1, orthonormal(products, products.transpose_times(products.random(width, rng)))
            keep(n_steps, partial(products.array, basis), none)
            progress("fit", n_steps, STEPS)
        while n_steps <= _POWER_ITERATIONS:
            product = products.times(basis)
            products.give_up(basis)
            basis = orthonormal(products, products.transpose_times(orthonormal(products, product)))
            n_steps += 1
            keep(n_steps, partial(products.array, basis), none)
            progress("fit", n_steps, STEPS)
        product = products.times(basis)
        squares, directions = _eigen(products.gramian(product))
        products.give_up(product)
        kept = min(k, squares.size)
        table = products.multiplied(basis, directions[:, :kept].astype(np.float32))
        found = RightSingularVectors(np.sqrt(squares[:kept]), products.array(table))
        products.give_up(table)
        keep(STEPS, lambda: found.vectors, found.values)
        progress("fit", STEPS, STEPS)
    return found


def orthonormal(products: Products[Table], given: Table) -> Table:
    """Return orthonormal columns that span those of a table; fewer columns if some depend on others."""
    squares, directions = _eigen(products.gramian(given))
    return products.multiplied(given, (directions / np.sqrt(squares)).astype(np.float32))


def gramian(table: Float32) -> Float64:
    """Return table' table, float64 (k, k)."""
    n, k = table.shape
    part = row_parts.part_rows(n)
    total: Float64 = np.zeros((k, k))
    for first in range(0, n, part * _SUMS_AT_ONCE):
        stop = min(first + part * _SUMS_AT_ONCE, n)
        sums = np.zeros((-(-(stop - first) // part), k, k))

        def add(start: int, end: int, first: int = first, sums: Float64 = sums) -> None:
            sums[start // part] = part_gramian(table[first + start : first + end])

        threads.run_in_blocks(add, stop - first, part)
        for of_part in sums:
            total += of_part
    return total


def part_gramian(rows: Float32) -> Float64:
    """Return the Gramian of the rows of one part, float32 (m, k): float64 (k, k)."""
    total: Float64 = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, rows.shape[0], BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS].astype(np.float64)
        total += block.T @ block
    return total


def multiplied(table: Float32, square: Float32) -> Float32:
    """Return the product of a table, float32 (n, k), with a small matrix, float32 (k, m), block by block."""
    product = np.empty((table.shape[0], square.shape[1]), dtype=np.float32)

    def multiply(start: int, stop: int) -> None:
        np.matmul(table[start:stop], square, out=product[start:stop])

    threads.run_in_blocks(multiply, table.shape[0], BLOCK_ROWS)
    return product


def _eigen(gram: Float64) -> tuple[Float64, Float64]:
    """Return the eigenvalues of a Gramian, descending, without negligible ones, and their eigenvectors as columns."""
    squares, directions = scipy.linalg.eigh(gram, check_finite=False, driver="evd")
    squares, directions = squares[::-1], directions[:, ::-1]
    n_kept = int(np.count_nonzero(squares > _NEGLIGIBLE * max(float(squares[0]), np.finfo(np.float64).tiny)))
    return squares[:n_kept], directions[:, :n_kept]


def sorted_transpose(matrix: csr_array) -> csr_array:
    """Return the transpose of a matrix as CSR with int32 indices, ascending in a row."""
    transpose = matrix.T.tocsr()
    transpose.sort_indices()
    transpose.indices = transpose.indices.astype(np.int32, copy=False)
    return transpose
