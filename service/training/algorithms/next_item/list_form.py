"""The lists of next items of `next_item`: ridge regressions from the inputs of an interaction to its target.

With the statistics G and C of `kernels.next_item.decayed_pairs`, the weights of all inputs for all targets are

    B = (G + diag(penalties))^-1 C

the ridge regression of SLIST (M. Choi, J. Kim, J. Lee, H. Shim and J. Lee, "Session-aware linear item-item models for
session-based recommendation", WWW 2021) for sequences whose inputs decay. Up to `WHOLE_ITEMS` items it is solved as it
stands. Beyond, no table of items by items is in memory: each target is regressed on those inputs alone that precede it
most, relative to how frequent they are, and the memory is linear in the number of items.

Of the weights of each input, the largest in absolute value are served. Negative ones matter: without them NDCG@10 on
MovieLens 1M is .01 lower.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from service.errors import TrainingDiverged
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbours.lists import (
    Lists,
    joined_lists,
    lists_of_rows,
    neighbour_lists,
    push_bounded,
)
from service.training.algorithms.kernels.next_item import candidate_ridge
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights, occurrences
from service.training.algorithms.kernels.next_item.item_sequences import Sequences
from service.training.algorithms.kernels.next_item.pair_rows import Kept, largest_entries, whole_rows
from service.training.interactions import Float32, Float64, Int32, Int64, no_progress

# Two float32 tables of items by items are then at most 288 MB, and their solution takes seconds.
WHOLE_ITEMS: Final = 6000
SOLVED_TARGETS: Final = 128
# Inputs of a target without a table of items by items. The time of all solutions is that of so many items with 250
# inputs each, half a minute of one core: at 100,000 items a target has 123.
_MOST_INPUTS: Final = 300
_SOLUTIONS: Final = 12_000 * 250**3
_GRAM_ENTRIES: Final = 4  # entries kept of a row of G, for each input of a target
# Inputs of a target are compared by C / count^_FREQUENCY.
_FREQUENCY: Final = 0.25


class SumsCheckpoint(Protocol):
    """Where the sums over pairs are kept: G and the transpose of C, or the arrays of both `Kept`."""

    def sums(self) -> Sequence[NDArray[Any]] | None:
        """Give up what was kept; None if nothing was."""

    def keep_sums(self, sums: Callable[[], Sequence[NDArray[Any]]]) -> None:
        """Keep sums, if it is time to."""


def fit(
    data: Sequences,
    how: PairWeights,
    penalties: Float64,
    scales: Float64,
    n_kept: int,
    *,
    quick: bool = False,
    whole_items: int = WHOLE_ITEMS,
    checkpoint: SumsCheckpoint | None = None,
) -> csr_array:
    """Return the weights of each input, those of its next items with the largest absolute values.

    Args:
        penalties: Float64 (n_items,), above 0.
        scales: Float64 (n_items,), the factor of the weights for each target.
        n_kept: Maximum number of next items of an input.
        quick: Whether a target has half as many inputs if not all, which takes an eighth of the time.
        whole_items: Up to so many items, all inputs of a target count.
        checkpoint: Where the sums over pairs are kept.

    Returns:
        float32 CSR (n_items, n_items) with int32 indices, ascending in a row: inputs by targets.

    Raises:
        TrainingDiverged: The regression has no solution in the available precision.
    """
    sums = None if checkpoint is None else checkpoint.sums()
    if data.n_items <= whole_items:
        gram, cross = whole_rows(data, occurrences(data), how) if sums is None else sums
        if sums is None and checkpoint is not None:
            checkpoint.keep_sums(lambda: (gram, cross))
        weights = solved(factored(gram, penalties), cross)
        return joined_lists([largest_of_whole([weights], 0, data.n_items, scales, n_kept)], data.n_items)
    kept_of_gram, n_inputs = entries_kept(data.n_items, quick=quick)
    if sums is not None:
        kept, cross_kept = entries_of(sums)
    else:
        comparable = comparable_scales(data.counts)
        kept, cross_kept = largest_entries(data, occurrences(data), how, comparable, kept_of_gram, n_inputs)
        if checkpoint is not None:
            checkpoint.keep_sums(lambda: (*kept, *cross_kept))
    candidate_ridge.solve(kept, cross_kept, penalties)
    return largest_of_solved(cross_kept, scales, n_kept)


def entries_of(sums: Sequence[NDArray[Any]]) -> tuple[Kept, Kept]:
    """Return the largest entries of G and of C from their arrays, as `SumsCheckpoint` has them.

    Raises:
        ValueError: The arrays are not those of two `Kept`.
    """
    columns, values, lengths, cross_columns, cross_values, cross_lengths = sums
    return Kept(columns, values, lengths), Kept(cross_columns, cross_values, cross_lengths)


def entries_kept(n_items: int, *, quick: bool) -> tuple[int, int]:
    """Return how many entries are kept of a row of G and of a column of C, where not all are."""
    n_inputs = max(1, min(_MOST_INPUTS, int((_SOLUTIONS / n_items) ** (1 / 3))) // (2 if quick else 1))
    return _GRAM_ENTRIES * n_inputs, n_inputs


def comparable_scales(counts: Int64) -> Float64:
    """Return by what the entries of an item are multiplied before they are compared with those of others."""
    scales: Float64 = np.maximum(counts, 1) ** -_FREQUENCY
    return scales


def factored(gram: Float32, penalties: Float64) -> Float32:
    """Return the Cholesky factor of G with the penalties on its diagonal, as LAPACK has it; `gram` is overwritten.

    Raises:
        TrainingDiverged: There is none in the available precision.
    """
    gram.reshape(-1)[:: penalties.size + 1] += penalties.astype(np.float32)
    with threads.one_blas_thread():
        # LAPACK is column-major: the lower triangle of a row-major matrix is its upper one.
        factor, fault = scipy.linalg.lapack.spotrf(gram.T, lower=0, overwrite_a=1, clean=0)
    if fault:
        raise _diverged()
    found: Float32 = factor
    return found


def solved(factor: Float32, cross: Float32) -> Float32:
    """Replace rows of the transpose of C, one per target, by those of the transpose of B, and return them.

    Args:
        cross: Float32 (m, n_items); its first target is a multiple of `SOLVED_TARGETS`, for all bits to be the same.

    Raises:
        TrainingDiverged: The regression has no solution in the available precision.
    """

    def solve(start: int, stop: int) -> None:
        # Rows of the transpose are the right-hand sides of LAPACK, which replaces them in place.
        scipy.linalg.lapack.spotrs(factor, cross[start:stop].T, lower=0, overwrite_b=1)

    with threads.one_blas_thread():
        threads.run_in_blocks(solve, cross.shape[0], SOLVED_TARGETS)
    if not np.isfinite(cross.sum(dtype=np.float64)):
        raise _diverged()
    return cross


def _diverged() -> TrainingDiverged:
    return TrainingDiverged("next_item cannot solve its regression in the available precision; raise reg.")


def largest_of_whole(weights: Sequence[Float32], first: int, end: int, scales: Float64, n_kept: int) -> Lists:
    """Return the lists of inputs first to end.

    Args:
        weights: The transpose of B in parts of its rows, the targets: float32 (m, n_items) each.
        scales: Float64 (n_items,), the factor of the weights for each target.
    """
    n_items = scales.size
    factors = scales.astype(np.float32)

    def write(start: int, stop: int, targets: Int32, values: Float32, counts: Int64) -> None:
        block = np.ascontiguousarray(np.concatenate([part[:, start:stop] for part in weights]).T)
        block *= factors
        columns = np.tile(np.arange(n_items, dtype=np.int32), stop - start)
        indptr = np.arange(0, columns.size + 1, n_items)
        _keep_largest(start, indptr, columns, block.reshape(-1), targets, values, counts)

    return lists_of_rows(write, first, end - first, max(1, min(n_kept, n_items - 1)), no_progress)


def largest_of_solved(solved_inputs: Kept, scales: Float64, n_kept: int) -> csr_array:
    """Return the lists of all inputs, given the weights of the inputs of each target.

    Args:
        scales: Float64 (n_items,), the factor of the weights for each target.
    """
    n_items = scales.size
    used = np.arange(solved_inputs.columns.shape[1]) < solved_inputs.lengths[:, np.newaxis]
    targets = np.repeat(np.arange(n_items, dtype=np.int32), solved_inputs.lengths)
    values_by_target = solved_inputs.values[used] * scales[targets].astype(np.float32)
    entries = (values_by_target, (solved_inputs.columns[used], targets))
    by_input: Any = coo_array(entries, shape=(n_items, n_items)).tocsr()
    by_input.sort_indices()

    def write(start: int, stop: int, kept: Int32, values: Float32, counts: Int64) -> None:
        indptr = by_input.indptr[start : stop + 1].astype(np.int64)
        _keep_largest(start, indptr, by_input.indices.astype(np.int32, copy=False), by_input.data, kept, values, counts)

    return neighbour_lists(write, n_items, n_kept, no_progress)


@compiled
def _keep_largest(
    first: int, indptr: Int64, columns: Int32, values: Float32, kept: Int32, weights: Float32, counts: Int64
) -> None:  # pragma: no cover  # compiled; tests/reference/next_item.py
    """Write the entries of each row with the largest absolute values, without zeros and without the row itself.

    Args:
        first: The number of the first row.
        indptr: Int64 (m + 1,), bounds of the rows in `columns` and `values`.
        kept: Output, int32 (m, n_kept).
        weights: Output, float32 (m, n_kept).
        counts: Output, int64 (m,).
    """
    n_kept = kept.shape[1]
    keys, places = np.empty(n_kept, np.float32), np.empty(n_kept, np.int64)
    for row in range(counts.size):
        size = 0
        for place in range(indptr[row], indptr[row + 1]):
            if values[place] != 0 and columns[place] != first + row:
                size = push_bounded(keys, places, size, abs(values[place]), place)
        for at in range(size):
            kept[row, at] = columns[places[at]]
            weights[row, at] = values[places[at]]
        counts[row] = size
