"""Ridge regressions of each target item on a few inputs of its own, from sparse statistics.

For target i with the inputs S, the weights are the solution of (G[S, S] + diag(penalties[S])) b = C[S, i]. With inputs
scaled by the root of their penalty the matrix is the identity plus a Gramian, whose pivots are at least 1; entries of G
that were not kept count as 0, and where that makes the matrix indefinite its pivots are raised to 1.

Invariant: a row depends on the data alone; neither blocks nor threads change a bit.
"""

from typing import Final

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.next_item.pair_rows import Kept
from service.training.algorithms.kernels.sparse.ridge import PANEL, solve_positive
from service.training.interactions import Float64, Int32

_BLOCK_ITEMS: Final = 16


def solve(gram: Kept, cross: Kept, penalties: Float64) -> None:
    """Replace the values of `cross` by the weights of its inputs.

    Args:
        gram: Entries of each row of G, with its diagonal.
        cross: The inputs of each target, or of some targets, with their entry of C.
        penalties: Float64 (n_items,), above 0.
    """
    shrinkage = 1 / np.sqrt(penalties)

    def work(start: int, stop: int) -> None:
        _solve_rows(start, stop, gram, cross, shrinkage)

    threads.run_in_blocks(work, cross.lengths.size, _BLOCK_ITEMS)


@compiled
def _solve_rows(
    start: int, stop: int, gram: Kept, cross: Kept, shrinkage: Float64
) -> None:  # pragma: no cover  # compiled; tests/reference/next_item.py
    n_items, width = gram.columns.shape[0], cross.columns.shape[1]
    place_of = np.full(n_items, -1, np.int32)
    system, panel, right = np.empty((width, width)), np.empty((PANEL, width)), np.empty(width)
    for target in range(start, stop):
        n = cross.lengths[target]
        inputs = cross.columns[target, :n]
        for place in range(n):
            place_of[inputs[place]] = place
            right[place] = cross.values[target, place] * shrinkage[inputs[place]]
        _gather(inputs, gram, place_of, shrinkage, system)
        solve_positive(system, panel, right, n)
        for place in range(n):
            cross.values[target, place] = right[place] * shrinkage[inputs[place]]
            place_of[inputs[place]] = -1


@compiled
def _gather(
    inputs: Int32, gram: Kept, place_of: Int32, shrinkage: Float64, system: Float64
) -> None:  # pragma: no cover  # compiled
    """Write the upper triangle of the scaled matrix; an entry kept in one of its two rows counts for both."""
    n = inputs.size
    for row in range(n):
        for column in range(row, n):
            system[row, column] = 0.0
    for row in range(n):
        item = inputs[row]
        for at in range(gram.lengths[item]):
            column = place_of[gram.columns[item, at]]
            if column < 0:
                continue
            value = gram.values[item, at] * shrinkage[item] * shrinkage[inputs[column]]
            system[min(row, column), max(row, column)] = value
        system[row, row] += 1.0
