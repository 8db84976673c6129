"""Sparse matrices as compiled kernels take them, and pairs grouped by row."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.training.interactions import Float32, Float64, Int32, Int64


class SparseRows(NamedTuple):
    """A CSR matrix.

    Attributes:
        indptr: Int64 (n + 1,).
        indices: Int32 (nnz,), ascending in a row.
        values: Float32 (nnz,).
    """

    indptr: Int64
    indices: Int32
    values: Float32


def sparse_rows(matrix: csr_array, values: Float32 | None = None) -> SparseRows:
    """Return a CSR matrix for kernels; read-only arrays are copied, because numba compiles a second kernel for them.

    Args:
        matrix: Float32 CSR with int32 indices, ascending in a row.
        values: Float32 (nnz,), instead of the values of the matrix.
    """
    return SparseRows(
        matrix.indptr.astype(np.int64),
        np.require(matrix.indices, np.int32, ["C", "W"]),
        np.require(matrix.data if values is None else values, np.float32, ["C", "W"]),
    )


class PairGroups(NamedTuple):
    """Pairs grouped by their row.

    Attributes:
        order: Int64 (n,), positions of the pairs, row by row.
        rows: Int64 (m,), the rows that occur, ascending.
        bounds: Int64 (m + 1,), start and end of each row's pairs in `order`.
    """

    order: Int64
    rows: Int64
    bounds: Int64


def group_pairs(rows: NDArray[np.integer[Any]]) -> PairGroups:
    """Group pairs, given the row of each, int (n,)."""
    order = np.argsort(rows, kind="stable")
    found, starts = np.unique(rows[order], return_index=True)
    return PairGroups(order, found.astype(np.int64), np.append(starts, rows.size).astype(np.int64))


def row_means(matrix: csr_array, values: NDArray[Any]) -> Float64:
    """Return the mean of values, float (nnz,) in the order of a CSR matrix, by row: float64 (n,); 0 for empty rows."""
    counts = np.diff(matrix.indptr)
    sums = np.bincount(np.repeat(np.arange(counts.size), counts), weights=values, minlength=counts.size)
    means: Float64 = sums / np.maximum(counts, 1)
    return means
