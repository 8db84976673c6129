"""Half epochs of implicit ALS by workers: each solves ranges of rows (Hu, Koren and Volinsky, ICDM 2008, section 4).

The process of the fit holds both tables. The interactions of a range are given to the workers once, the fixed table
once for each half epoch, and a task returns the factors of its range.

Invariant: a row's factors are those that one process computes, to the bit, because a row depends on no other. Ranges
depend on the data alone.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.executors.executor import Executor, Ref, executor_in_use
from service.training.algorithms.ials.rows import RowInteractions, SolvableRows
from service.training.interactions import Float32, Float64, Int64

# A row costs as much as so many of its interactions, however few it has.
ROW_COST: Final = 8
# Ranges of a table: as many as keep a dozen workers busy, but none that is done within milliseconds, nor one so long
# that a worker's death, or the wait for the last range, costs much.
_RANGES: Final = 24
_LEAST_COST: Final = 1 << 14
MOST_COST: Final = 1 << 18


class _Range(NamedTuple):
    """Rows that a task solves: start to stop."""

    start: int
    stop: int
    rows: Ref[RowInteractions]


@contextmanager
def rows_in_use(rows: RowInteractions, side: str) -> Iterator[SolvableRows]:
    """Yield rows that are solved by the executor in use; the given ones if there is none.

    Args:
        side: What the rows are, such as "users", for the screen of workers.
    """
    executor = executor_in_use()
    if executor is None:
        yield rows
        return
    distributed = _DistributedRows(executor, rows, side)
    del rows  # the workers have them
    try:
        yield distributed
    finally:
        distributed.release()


def ranges_of(indptr: Int64) -> list[tuple[int, int]]:
    """Return the ranges of rows, (start, stop) each, that together are all rows and cost about equally much.

    Args:
        indptr: Int64 (n_rows + 1,), the interactions of rows 0 to r are indptr[r].
    """
    n_rows = indptr.size - 1
    cost_before = indptr + ROW_COST * np.arange(n_rows + 1)
    total = int(cost_before[-1])
    cost = min(max(total // _RANGES, _LEAST_COST), MOST_COST)
    cuts = np.searchsorted(cost_before, np.arange(cost, total, cost))
    bounds = np.unique(np.concatenate([[0], cuts, [n_rows]])).tolist()
    return list(itertools.pairwise(bounds))


class _DistributedRows:
    """The rows of one side, in ranges that workers solve."""

    def __init__(self, executor: Executor, rows: RowInteractions, side: str) -> None:
        self._executor = executor
        self._stage = f"ials: {side}"
        self._is_known: NDArray[np.bool_] = np.diff(rows.pairs.indptr) > 0
        self._ranges = [
            _Range(start, stop, executor.put(rows.between(start, stop))) for start, stop in ranges_of(rows.pairs.indptr)
        ]

    def solve(self, fixed: Float32, spectrum: Float64, solved: Float32, block_size: int) -> None:
        """Solve all rows; as in `SolvableRows`."""
        executor = self._executor
        table = executor.put(fixed)
        # A solution of all factors at once has no start.
        starts: list[Ref[Float32]] = []
        if block_size < fixed.shape[1]:
            starts = [executor.put(solved[each.start : each.stop]) for each in self._ranges]
        tasks = [
            (each.rows, table, spectrum, starts[n] if starts else None, block_size)
            for n, each in enumerate(self._ranges)
        ]
        for n, factors in executor.completed(_solved, tasks, stage=self._stage):
            own = slice(self._ranges[n].start, self._ranges[n].stop)
            np.copyto(solved[own], factors, where=self._is_known[own, np.newaxis])
        executor.release([table, *starts])

    def release(self) -> None:
        """Give up the interactions that the workers hold."""
        self._executor.release([each.rows for each in self._ranges])


def _solved(
    rows: RowInteractions, fixed: Float32, spectrum: Float64, start: Float32 | None, block_size: int
) -> Float32:
    """Return the factors of some rows, float32 (n_rows, k)."""
    shape = (rows.penalties.size, fixed.shape[1])
    solved = np.zeros(shape, np.float32) if start is None else start.copy()
    rows.solve(fixed, spectrum, solved, block_size)
    return solved
