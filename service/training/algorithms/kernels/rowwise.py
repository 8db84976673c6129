"""What models of neighbours share: a row of a square matrix at a time, never all of it.

They compare everything with everything. A row of that is computed by walking over what one thing shares with others,
into one row of sums per thread; what is kept of it is its best entries, or the predictions that need it.

Invariant: a row depends on nothing but the data, so that neither blocks nor threads change a bit.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.threads import in_blocks
from service.training.interactions import Float32, Int32, Int64, Progress

Float64 = NDArray[np.float64]
# So few that all cores have work to the end, so many that setting up a row of sums does not count.
BLOCK_ROWS: Final = 128


class Rows(NamedTuple):
    """A sparse matrix as kernels take it.

    Attributes:
        indptr: Int64 (n + 1,).
        indices: Int32 (nnz,), ascending in a row.
        values: Float32 (nnz,).
    """

    indptr: Int64
    indices: Int32
    values: Float32


def rows_of(matrix: csr_array, values: Float32 | None = None) -> Rows:
    """Return a CSR matrix for kernels; arrays of a mapped model are copied, as numba compiles once more for read-only.

    Args:
        matrix: Float32 CSR with int32 indices, ascending in a row.
        values: Float32 (nnz,), instead of the matrix's own.
    """
    return Rows(
        matrix.indptr.astype(np.int64),
        np.require(matrix.indices, np.int32, ["C", "W"]),
        np.require(matrix.data if values is None else values, np.float32, ["C", "W"]),
    )


class Grouped(NamedTuple):
    """Pairs put together by their row.

    Attributes:
        order: Int64 (n,), positions of the pairs, row by row.
        rows: Int64 (m,), the rows that occur, ascending.
        bounds: Int64 (m + 1,), where in `order` each row's pairs begin and end.
    """

    order: Int64
    rows: Int64
    bounds: Int64


def grouped(rows: NDArray[np.integer[Any]]) -> Grouped:
    """Group pairs, given the row of each, int (n,)."""
    order = np.argsort(rows, kind="stable")
    found, starts = np.unique(rows[order], return_index=True)
    return Grouped(order, found.astype(np.int64), np.append(starts, rows.size).astype(np.int64))


def row_means(matrix: csr_array, values: NDArray[Any]) -> Float64:
    """Return the mean of some values over what each row stores: float64 (n,); 0 for an empty row.

    Args:
        matrix: CSR (n, m).
        values: Float (nnz,), in the order of the matrix.
    """
    counts = np.diff(matrix.indptr)
    sums = np.bincount(np.repeat(np.arange(counts.size), counts), weights=values, minlength=counts.size)
    means: Float64 = sums / np.maximum(counts, 1)
    return means


Fill = Callable[[int, int, Int32, Float32, Int64], None]
"""(start, stop, names, weights, counts): writes the lists of rows start to stop.

`names` int32 and `weights` float32 are (stop - start, n), in any order within a row; `counts` int64 (stop - start,)
says how many of a row's places are used.
"""


def lists(fill: Fill, n: int, n_kept: int, progress: Progress) -> csr_array:
    """Collect lists of neighbours.

    Args:
        fill: Computes the lists of a block of rows.
        n: How many rows, and how many may be neighbours.
        n_kept: The longest list.
        progress: Told of the rows.

    Returns:
        float32 CSR (n, n) with int32 indices, ascending in a row.
    """
    width = max(1, min(n_kept, n - 1))
    parts: dict[int, tuple[Int32, Float32]] = {}
    counts = np.zeros(n, dtype=np.int64)
    n_done, lock = 0, Lock()

    def work(start: int, stop: int) -> None:
        nonlocal n_done
        names = np.empty((stop - start, width), dtype=np.int32)
        weights = np.empty((stop - start, width), dtype=np.float32)
        fill(start, stop, names, weights, counts[start:stop])
        used = np.arange(width) < counts[start:stop, np.newaxis]
        parts[start] = names[used], weights[used]
        with lock:
            n_done += stop - start
            progress("fit", n_done, n)

    progress("fit", 0, n)
    in_blocks(work, n, BLOCK_ROWS)
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    in_order = [parts[start] for start in sorted(parts)]
    names, weights = (np.concatenate(columns) for columns in zip(*in_order, strict=True))
    return tidy(csr_array((weights, names, indptr), shape=(n, n)))


def tidy(matrix: csr_array) -> csr_array:
    """Put a matrix into the form of `Neighbourhood.weights`; stored zeros stay."""
    matrix.sort_indices()
    matrix.indices = matrix.indices.astype(np.int32, copy=False)
    return matrix


@compiled
def offer(
    keys: Float32 | Float64, names: Int32 | Int64, size: int, key: float | np.floating[Any], name: int
) -> int:  # pragma: no cover  # compiled; tests of the models hold it to their references
    """Put a candidate among the best: those with the largest keys and, of equal keys, the smallest names.

    Args:
        keys: Float32 or float64 (capacity,), a binary heap with the worst at its root.
        names: Int32 or int64 (capacity,), in the same order.
        size: How many it holds.
        key: The candidate's.
        name: The candidate's.

    Returns:
        How many it holds now.
    """
    at = 0
    if size < keys.size:
        at = size
        size += 1
        while at > 0:
            above = (at - 1) // 2
            if key > keys[above] or (key == keys[above] and name < names[above]):
                break
            keys[at], names[at] = keys[above], names[above]
            at = above
    elif key < keys[0] or (key == keys[0] and name > names[0]):
        return size
    else:
        below = 1
        while below < size:
            other = below + 1
            if other < size and (
                keys[other] < keys[below] or (keys[other] == keys[below] and names[other] > names[below])
            ):
                below = other
            if key < keys[below] or (key == keys[below] and name > names[below]):
                break
            keys[at], names[at] = keys[below], names[below]
            at = below
            below = 2 * at + 1
    keys[at], names[at] = key, name
    return size
