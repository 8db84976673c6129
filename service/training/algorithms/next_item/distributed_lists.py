"""The lists of `next_item` by the workers of an executor.

The sums over pairs are cut twice. A task computes the rows of a range of items, from the sequences of one part of the
users. Up to `_PART_ENTRIES` interactions there is one part; where there are more, the sums of a range pass from part to
part, so that each task reads one part of the sequences and the sums of its own range. Then one task factors the matrix
of all items and others solve for ranges of targets; or, of many items, tasks solve for ranges of targets from the
largest entries of all rows.

Invariant: the lists are those of `algorithms.next_item.list_form.fit`, to the last bit, because each sum is continued
in the order of users. Ranges and parts depend on the data alone.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.executors.executor import Executor, Ref
from service.training.algorithms.kernels.neighbours.lists import joined_lists
from service.training.algorithms.kernels.next_item import candidate_ridge
from service.training.algorithms.kernels.next_item.decayed_pairs import Occurrences, PairWeights, occurrences
from service.training.algorithms.kernels.next_item.item_sequences import Sequences, of_users
from service.training.algorithms.kernels.next_item.pair_rows import (
    Kept,
    PairSums,
    largest_entries,
    pair_sums,
    rows_of,
    whole_rows,
)
from service.training.algorithms.next_item import list_form
from service.training.algorithms.next_item.list_form import SOLVED_TARGETS, WHOLE_ITEMS, SumsCheckpoint
from service.training.interactions import Float32, Float64, Int64

# 1.8 GB of sequences and their order by item.
_PART_ENTRIES: Final = 1 << 25
# Additions, of pairs and of columns, in a range of items: some tenths of a second.
_RANGE_COST: Final = 1e7
_MOST_RANGES: Final = 256
_PAIRS: Final = "next_item: pairs"
_SOLUTIONS: Final = "next_item: solutions"
_LISTS: Final = "next_item: lists"

_Bounds: TypeAlias = tuple[int, int]
_Part: TypeAlias = tuple[Ref[Sequences], Ref[Occurrences]]
_Sums: TypeAlias = list[list[tuple[Ref[Any], ...]]]  # of G and of C, for each way of counting and range of items


def fit(
    executor: Executor,
    data: Sequences,
    hows: Sequence[PairWeights],
    penalties: Float64,
    scales: Float64,
    n_kept: int,
    *,
    quick: bool = False,
    whole_items: int = WHOLE_ITEMS,
    part_entries: int = _PART_ENTRIES,
    checkpoint: SumsCheckpoint | None = None,
) -> list[csr_array]:
    """Return the weights of each input for each way of counting pairs, as `list_form.fit` has them.

    Several ways at once keep workers busy while one of them factors a matrix.

    Args:
        part_entries: Most interactions of a part of the users, unless one user has more.
        checkpoint: Where the sums over pairs are kept, for a single way of counting them.

    Raises:
        TrainingDiverged: The regression has no solution in the available precision.
    """
    ranges = item_ranges(data.counts, hows[0].window)
    is_whole = data.n_items <= whole_items
    kept = None if checkpoint is None else checkpoint.sums()
    if kept is None:
        split = _sums(executor, data, hows, ranges, quick=quick, whole_items=whole_items, part_entries=part_entries)
        if checkpoint is not None:
            checkpoint.keep_sums(partial(_whole_kept if is_whole else _entries_kept, executor, split))
    else:
        placed = _whole_placed if is_whole else _entries_placed
        split = [placed(executor, kept, *bounds) for bounds in ranges]
    of_hows = [split[start : start + len(ranges)] for start in range(0, len(split), len(ranges))]
    if is_whole:
        return _of_all_inputs(executor, of_hows, ranges, penalties, scales, n_kept)
    return _of_few_inputs(executor, of_hows, penalties, scales, n_kept)


def _sums(
    executor: Executor,
    data: Sequences,
    hows: Sequence[PairWeights],
    ranges: list[_Bounds],
    *,
    quick: bool,
    whole_items: int,
    part_entries: int,
) -> list[tuple[Ref[Any], ...]]:
    """Return G and C for each way of counting pairs and each range of items; see `fit`."""
    rows = [(how, *bounds) for how in hows for bounds in ranges]
    parts = _shared(executor, data, part_entries)
    before: list[Ref[PairSums] | None] = [None] * len(rows)
    for part in parts[:-1]:
        tasks = [(*part, *row, sums) for row, sums in zip(rows, before, strict=True)]
        found = executor.run(_summed, tasks, stage=_PAIRS)
        executor.release(sums for sums in before if sums is not None)
        before = list(found)
    last = [(*parts[-1], *row, sums) for row, sums in zip(rows, before, strict=True)]
    if data.n_items <= whole_items:
        split = executor.run_split(_whole, last, 2, stage=_PAIRS)
    else:
        n_gram, n_cross = list_form.entries_kept(data.n_items, quick=quick)
        comparable = executor.put(list_form.comparable_scales(data.counts))
        split = executor.run_split(_largest, [(*task, comparable, n_gram, n_cross) for task in last], 2, stage=_PAIRS)
        executor.release([comparable])
    executor.release(sums for sums in before if sums is not None)
    for part in parts:
        executor.release(part)
    return split


def _whole_kept(executor: Executor, split: list[tuple[Ref[Float32], ...]]) -> tuple[Float32, Float32]:
    """Return G and the transpose of C of all ranges, as a checkpoint has them."""
    grams, crosses = ([executor.get(ref) for ref in refs] for refs in zip(*split, strict=True))
    return np.concatenate(grams), np.concatenate(crosses)


def _entries_kept(executor: Executor, split: list[tuple[Ref[Kept], ...]]) -> tuple[NDArray[Any], ...]:
    """Return the largest entries of all ranges, the arrays of G and then those of C, as a checkpoint has them."""
    grams, crosses = ([executor.get(ref) for ref in refs] for refs in zip(*split, strict=True))
    return (*_joined(grams), *_joined(crosses))


def _whole_placed(executor: Executor, kept: Sequence[NDArray[Any]], first: int, end: int) -> tuple[Ref[Any], ...]:
    """Give the workers a range of rows of G and of the transpose of C that a checkpoint had."""
    gram, cross = kept
    return executor.put(gram[first:end]), executor.put(cross[first:end])


def _entries_placed(executor: Executor, kept: Sequence[NDArray[Any]], first: int, end: int) -> tuple[Ref[Any], ...]:
    """Give the workers a range of the largest entries that a checkpoint had."""
    gram, cross = list_form.entries_of([array[first:end] for array in kept])
    return executor.put(gram), executor.put(cross)


def item_ranges(counts: Int64, window: int) -> list[_Bounds]:
    """Return ranges of items, first and end of each, whose rows cost about equally much.

    Args:
        counts: Int64 (n_items,), the number of interactions of each item.
    """
    n_blocks = -(-counts.size // SOLVED_TARGETS)
    of_block = np.add.reduceat(2.0 * window * counts + counts.size, np.arange(0, counts.size, SOLVED_TARGETS))
    cost = np.cumsum(of_block)
    n_ranges = min(max(1, int(cost[-1] / _RANGE_COST)), _MOST_RANGES)
    cuts = np.searchsorted(cost, cost[-1] * np.arange(1, n_ranges) / n_ranges) + 1
    bounds = np.unique([0, *cuts.tolist(), n_blocks]) * SOLVED_TARGETS
    bounds[-1] = counts.size
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def user_parts(starts: Int64, part_entries: int) -> list[_Bounds]:
    """Return parts of the users, first and end of each, of at most so many interactions, or of one user.

    Args:
        starts: Int64 (n_users + 1,), the first interaction of each user.
    """
    found, first = [], 0
    while first < starts.size - 1:
        after = int(np.searchsorted(starts, starts[first] + part_entries, side="right")) - 1
        end = max(after, first + 1)
        found.append((first, end))
        first = end
    return found


def _shared(executor: Executor, data: Sequences, part_entries: int) -> list[_Part]:
    """Give the sequences to the workers, part by part, with their order by item."""
    sequences = [executor.put(of_users(data, *bounds)) for bounds in user_parts(data.starts, part_entries)]
    orders = executor.run(occurrences, [(part,) for part in sequences], stage=_PAIRS)
    return list(zip(sequences, orders, strict=True))


def _of_all_inputs(
    executor: Executor,
    of_hows: _Sums,
    ranges: list[_Bounds],
    penalties: Float64,
    scales: Float64,
    n_kept: int,
) -> list[csr_array]:
    """Solve for all targets from all inputs."""
    grams = [[gram for gram, _ in sums] for sums in of_hows]
    factors = executor.run(_factored, [(list(parts), penalties) for parts in grams], stage=_SOLUTIONS)
    executor.release(itertools.chain(*grams))
    tasks = [(factor, cross) for factor, sums in zip(factors, of_hows, strict=True) for _, cross in sums]
    weights = executor.run(_solved, tasks, stage=_SOLUTIONS)
    executor.release([*factors, *(cross for _, cross in tasks)])
    of_ranges = [weights[start : start + len(ranges)] for start in range(0, len(weights), len(ranges))]
    lists = executor.run(
        list_form.largest_of_whole,
        [(parts, *bounds, scales, n_kept) for parts in of_ranges for bounds in ranges],
        stage=_LISTS,
    )
    executor.release(weights)
    found = []
    for start in range(0, len(lists), len(ranges)):
        parts = lists[start : start + len(ranges)]
        found.append(joined_lists([executor.get(part) for part in parts], penalties.size))
    executor.release(lists)
    return found


def _of_few_inputs(
    executor: Executor, of_hows: _Sums, penalties: Float64, scales: Float64, n_kept: int
) -> list[csr_array]:
    """Solve for all targets, each from the inputs that precede it most."""
    grams = [[gram for gram, _ in sums] for sums in of_hows]
    joined = executor.run(_joined, [(parts,) for parts in grams], stage=_SOLUTIONS)
    executor.release(itertools.chain(*grams))
    shared = executor.put(penalties)
    tasks = [(gram, cross, shared) for gram, sums in zip(joined, of_hows, strict=True) for _, cross in sums]
    solved = executor.run(_solved_for_few, tasks, stage=_SOLUTIONS)
    executor.release([*joined, shared, *(cross for _, cross, _ in tasks)])
    found, n_ranges = [], len(of_hows[0])
    for start in range(0, len(solved), n_ranges):
        weights = _joined([executor.get(part) for part in solved[start : start + n_ranges]])
        found.append(list_form.largest_of_solved(weights, scales, n_kept))
    executor.release(solved)
    return found


def _joined(parts: list[Kept]) -> Kept:
    """Return the rows of all parts, in their order."""
    columns, values, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Kept(columns, values, lengths)


def _summed(
    data: Sequences, found: Occurrences, how: PairWeights, first: int, end: int, before: PairSums | None
) -> PairSums:
    return pair_sums(data, found, how, rows_of(first, end, before))


def _whole(
    data: Sequences, found: Occurrences, how: PairWeights, first: int, end: int, before: PairSums | None
) -> tuple[Float32, Float32]:
    return whole_rows(data, found, how, rows_of(first, end, before))


def _largest(
    data: Sequences,
    found: Occurrences,
    how: PairWeights,
    first: int,
    end: int,
    before: PairSums | None,
    scales: Float64,
    n_gram: int,
    n_cross: int,
) -> tuple[Kept, Kept]:
    return largest_entries(data, found, how, scales, n_gram, n_cross, rows_of(first, end, before))


def _factored(grams: list[Float32], penalties: Float64) -> Float32:
    return list_form.factored(np.concatenate(grams), penalties)


def _solved(factor: Float32, cross: Float32) -> Float32:
    return list_form.solved(factor, cross.copy())


def _solved_for_few(gram: Kept, cross: Kept, penalties: Float64) -> Kept:
    solved = cross._replace(values=cross.values.copy())
    candidate_ridge.solve(gram, solved, penalties)
    return solved
