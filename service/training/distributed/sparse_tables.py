"""Products of a sparse matrix with tables that lie in parts at the workers of an executor.

The matrix is cut by its rows, the users. The product with it is a task for each part of the users. The product with its
transpose is a sum over larger parts of the users: a task computes the sum of one such part for one part of the columns,
the items, and another task adds the sums of a part of the items. So what is exchanged in a step is, for each part for
sums, a table of the items; and the whole table of the items once, which all tasks of the users read.

Invariant: parts depend on the size alone (`kernels.sparse.row_parts`), and sums over them are added in their order: the
bits are those of `ThreadedProducts`.
"""

from typing import Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from service.executors.executor import Executor, Ref, executor_in_use
from service.training.algorithms.kernels.sparse import row_parts
from service.training.algorithms.kernels.sparse.products import add_product, times_table
from service.training.algorithms.kernels.sparse.randomised_svd import (
    STEPS,
    RightSingularVectors,
    ThreadedProducts,
    kept_nowhere,
    multiplied,
    part_gramian,
    right_singular_vectors,
    sorted_transpose,
)
from service.training.algorithms.kernels.sparse.rows import SparseRows, sparse_rows
from service.training.checkpoints.basis import BasisCheckpoint
from service.training.interactions import Float32, Float64, Progress

_PRODUCTS: Final = "products"
_GRAMIANS: Final = "Gramians"


class PartedTable(NamedTuple):
    """A table as one reference for each part of its rows, in their order."""

    parts: list[Ref[Float32]]


class DistributedProducts:
    """Products by the workers of an executor.

    Args:
        matrix: Float32 CSR (n, m) with int32 indices, ascending in a row.
    """

    def __init__(self, executor: Executor, matrix: csr_array) -> None:
        self.shape: tuple[int, int] = matrix.shape
        n, m = self.shape
        self._executor: Final = executor
        self._user_ranges: Final = row_parts.ranges(n, row_parts.part_rows(n))
        self._item_ranges: Final = row_parts.ranges(m, row_parts.part_rows(m))
        # Work parts of the users in each part for sums.
        self._in_sum: Final = row_parts.summed_rows(n) // row_parts.part_rows(n)
        rows = sparse_rows(matrix)
        self._rows: Final = [executor.put(_of_rows(rows, *bounds)) for bounds in self._user_ranges]
        self._columns: Final = executor.run(_transposed, [(part, m) for part in self._rows], stage=_PRODUCTS)

    def close(self) -> None:
        """Free the matrix."""
        self._executor.release([*self._rows, *self._columns])

    def random(self, width: int, rng: np.random.Generator) -> PartedTable:
        """Draw a table."""
        return PartedTable(
            [
                self._executor.put(rng.standard_normal((stop - start, width), dtype=np.float32))
                for start, stop in self._user_ranges
            ]
        )

    def placed(self, array: Float32) -> PartedTable:
        """Give the parts of an array to the workers."""
        return PartedTable([self._executor.put(array[start:stop]) for start, stop in self._item_ranges])

    def times(self, table: PartedTable) -> PartedTable:
        """Multiply by the matrix: a task for each part of the users reads the whole table of the items."""
        whole = self._executor.run(_joined, [(table.parts,)], stage=_PRODUCTS) if len(table.parts) > 1 else table.parts
        product = self._executor.run(times_table, [(rows, whole[0]) for rows in self._rows], stage=_PRODUCTS)
        if len(table.parts) > 1:
            self._executor.release(whole)
        return PartedTable(product)

    def transpose_times(self, given: PartedTable) -> PartedTable:
        """Multiply by the transpose: sums of each part of the users, which are then added."""
        summed = [slice(first, first + self._in_sum) for first in range(0, len(self._columns), self._in_sum)]
        tasks = [
            (self._columns[parts], given.parts[parts], *bounds) for bounds in self._item_ranges for parts in summed
        ]
        sums = self._executor.run(_transpose_product, tasks, stage=_PRODUCTS)
        self.give_up(given)
        n_sums = len(summed)
        if n_sums == 1:
            return PartedTable(sums)
        of_items = [(sums[first : first + n_sums],) for first in range(0, len(sums), n_sums)]
        product = self._executor.run(_added, of_items, stage=_PRODUCTS)
        self._executor.release(sums)
        return PartedTable(product)

    def gramian(self, table: PartedTable) -> Float64:
        """Add the Gramians of the parts, in their order."""
        found = self._executor.run(part_gramian, [(part,) for part in table.parts], stage=_GRAMIANS)
        total = self._executor.get(found[0]).copy()
        for ref in found[1:]:
            total += self._executor.get(ref)
        self._executor.release(found)
        return total

    def multiplied(self, given: PartedTable, square: Float32) -> PartedTable:
        """Multiply by a small matrix, part by part."""
        shared = self._executor.put(square)
        product = self._executor.run(multiplied, [(part, shared) for part in given.parts], stage=_PRODUCTS)
        self._executor.release([shared])
        self.give_up(given)
        return PartedTable(product)

    def array(self, table: PartedTable) -> Float32:
        """Bring a table into this process."""
        return np.concatenate([self._executor.get(part) for part in table.parts])

    def give_up(self, given: PartedTable) -> None:
        """Free a table."""
        self._executor.release(given.parts)


def leading_vectors(
    matrix: csr_array,
    k: int,
    rng: np.random.Generator,
    progress: Progress,
    checkpoint: BasisCheckpoint | None = None,
) -> RightSingularVectors:
    """Find the right singular vectors of the k largest singular values, with the executor in use if there is one.

    Args:
        matrix: Float32 CSR (n, m) with int32 indices, ascending in a row.
        k: Number of vectors.
        rng: Draws the first table.
        progress: See `right_singular_vectors`.
        checkpoint: Where the steps of a fit are kept, to continue from after the process was killed.

    Raises:
        RunError: A checkpoint cannot be written, or workers failed.
    """
    begun = None if checkpoint is None else checkpoint.resume()
    keep = kept_nowhere if checkpoint is None else checkpoint.keep
    if begun is not None and begun.found is not None:
        progress("fit", STEPS, STEPS)
        return begun.found
    executor = executor_in_use()
    if executor is None:
        return right_singular_vectors(ThreadedProducts(matrix), k, rng, progress, begun=begun, keep=keep)
    products = DistributedProducts(executor, matrix)
    try:
        return right_singular_vectors(products, k, rng, progress, begun=begun, keep=keep)
    finally:
        products.close()


def _of_rows(rows: SparseRows, start: int, stop: int) -> SparseRows:
    """Return some rows of a matrix."""
    first, last = rows.indptr[start], rows.indptr[stop]
    return SparseRows(rows.indptr[start : stop + 1] - first, rows.indices[first:last], rows.values[first:last])


def _transposed(rows: SparseRows, m: int) -> SparseRows:
    """Return the transpose of rows of m columns."""
    shape = (rows.indptr.size - 1, m)
    return sparse_rows(sorted_transpose(csr_array((rows.values, rows.indices, rows.indptr), shape=shape)))


def _transpose_product(columns: list[SparseRows], tables: list[Float32], start: int, stop: int) -> Float32:
    """Return the rows of items start to stop of the product of the transpose of some users' parts with their tables."""
    product = np.zeros((stop - start, tables[0].shape[1]), dtype=np.float32)
    for part, table in zip(columns, tables, strict=True):
        add_product(_of_rows(part, start, stop), table, product)
    return product


def _joined(parts: list[Float32]) -> Float32:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _added(sums: list[Float32]) -> Float32:
    """Add the sums of parts in their order, float32 (m, k) each."""
    total = sums[0].copy()
    for other in sums[1:]:
        total += other
    return total
