"""The best neighbours of every row, computed block by block.

A kernel computes one row of all pairs at a time, in one row of sums per thread, and keeps its best entries.

Invariant: a row depends on the data alone; neither blocks nor threads change a bit.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from service.models.neighbourhood import Neighbourhood
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.threads import run_in_blocks
from service.training.interactions import Float32, Float64, Int32, Int64, Progress

# Few enough to keep all cores busy to the end, and enough that setting up a row of sums costs little.
BLOCK_ROWS: Final = 128

WriteLists = Callable[[int, int, Int32, Float32, Int64], None]
"""(start, stop, neighbours, weights, counts): writes the lists of rows start to stop.

`neighbours` int32 and `weights` float32 are (stop - start, n), unordered within a row; `counts` int64 (stop - start,)
is the length of each list.
"""


def neighbour_lists(write: WriteLists, n: int, n_kept: int, progress: Progress) -> csr_array:
    """Collect the neighbour lists of all rows.

    Args:
        write: Computes the lists of a block of rows.
        n: Number of rows, which are each other's possible neighbours.
        n_kept: Maximum length of a list.

    Returns:
        float32 CSR (n, n) with int32 indices, ascending in a row.
    """
    lists = lists_of_rows(write, 0, n, max(1, min(n_kept, n - 1)), progress)
    return joined_lists([lists], n)


class Lists(NamedTuple):
    """The lists of some rows, unordered within a row.

    Attributes:
        neighbours: Int32 (m,).
        weights: Float32 (m,).
        counts: Int64 (n,), the length of each list.
    """

    neighbours: Int32
    weights: Float32
    counts: Int64


def lists_of_rows(write: WriteLists, first: int, n: int, width: int, progress: Progress) -> Lists:
    """Collect the lists of n rows from `first` on, of at most `width` neighbours each."""
    parts: dict[int, tuple[Int32, Float32]] = {}
    counts = np.zeros(n, dtype=np.int64)
    n_done, lock = 0, Lock()

    def work(start: int, stop: int) -> None:
        nonlocal n_done
        neighbours = np.empty((stop - start, width), dtype=np.int32)
        weights = np.empty((stop - start, width), dtype=np.float32)
        write(first + start, first + stop, neighbours, weights, counts[start:stop])
        used = np.arange(width) < counts[start:stop, np.newaxis]
        parts[start] = neighbours[used], weights[used]
        with lock:
            n_done += stop - start
            progress("fit", n_done, n)

    progress("fit", 0, n)
    run_in_blocks(work, n, BLOCK_ROWS)
    in_order = [parts[start] for start in sorted(parts)]
    neighbours, weights = (np.concatenate(columns) for columns in zip(*in_order, strict=True))
    return Lists(neighbours, weights, counts)


def joined_lists(parts: Sequence[Lists], n: int) -> csr_array:
    """Return the lists of all n rows, given in parts: float32 CSR (n, n) with int32 indices, ascending in a row."""
    neighbours, weights, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return sorted_rows(csr_array((weights, neighbours, indptr), shape=(n, n)))


def sorted_rows(matrix: csr_array) -> csr_array:
    """Return a matrix in the form of `Neighbourhood.weights`: int32 indices, ascending in a row, zeros kept."""
    matrix.sort_indices()
    matrix.indices = matrix.indices.astype(np.int32, copy=False)
    return matrix


def item_neighbourhood(weights: Float32, items: Int32, counts: Int64) -> Neighbourhood:
    """Return item neighbours whose weights are summed over the seen items.

    Args:
        weights: Float32 (m,), neighbour after neighbour.
        items: Int32 (m,), the item that each weight is for, ascending for each neighbour.
        counts: Int64 (n_items,), number of weights of each neighbour.
    """
    n_items = counts.size
    indptr = np.concatenate([[0], np.cumsum(counts)])
    if weights.size <= np.iinfo(np.int32).max:
        # With int64 pointers scipy would widen the indices.
        indptr = indptr.astype(np.int32)
    matrix = csr_array((weights, items, indptr), shape=(n_items, n_items))
    matrix.indices = matrix.indices.astype(np.int32, copy=False)
    return Neighbourhood(over="items", combine="sum", signal="seen", weights=matrix)


@compiled
def push_bounded(
    keys: Float32 | Float64, ids: Int32 | Int64, size: int, key: float | np.floating[Any], id_: int
) -> int:  # pragma: no cover  # compiled; tests/reference
    """Offer a candidate to a bounded heap, which keeps the largest keys and, of equal keys, the smallest ids.

    Args:
        keys: Float32 or float64 (capacity,), a binary heap with the worst candidate at its root.
        ids: Int32 or int64 (capacity,), in the same order.

    Returns:
        The new size.
    """
    at = 0
    if size < keys.size:
        at = size
        size += 1
        while at > 0:
            above = (at - 1) // 2
            if key > keys[above] or (key == keys[above] and id_ < ids[above]):
                break
            keys[at], ids[at] = keys[above], ids[above]
            at = above
    elif key < keys[0] or (key == keys[0] and id_ > ids[0]):
        return size
    else:
        below = 1
        while below < size:
            other = below + 1
            if other < size and (keys[other] < keys[below] or (keys[other] == keys[below] and ids[other] > ids[below])):
                below = other
            if key < keys[below] or (key == keys[below] and id_ > ids[below]):
                break
            keys[at], ids[at] = keys[below], ids[below]
            at = below
            below = 2 * at + 1
    keys[at], ids[at] = key, id_
    return size
