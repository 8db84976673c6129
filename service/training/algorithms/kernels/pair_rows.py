"""Rows of the pair statistics of next-item models, whole or reduced to the largest entries.

Invariant: a row depends on the data alone; neither blocks nor threads change a bit.
"""

from typing import Final, NamedTuple

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.decayed_pairs import Occurrences, PairWeights, add_pairs
from service.training.algorithms.kernels.item_sequences import Sequences
from service.training.algorithms.kernels.neighbour_lists import push_bounded
from service.training.interactions import Float32, Float64, Int32, Int64

_BLOCK_ITEMS: Final = 64


class Kept(NamedTuple):
    """The kept entries of each row, ascending by column.

    Attributes:
        columns: Int32 (n, m).
        values: Float32 (n, m).
        lengths: Int64 (n,), the used part of each row.
    """

    columns: Int32
    values: Float32
    lengths: Int64


def whole_rows(data: Sequences, found: Occurrences, how: PairWeights) -> tuple[Float32, Float32]:
    """Return G and the transpose of C, float32 (n_items, n_items) each."""
    n = data.n_items
    gram, cross = np.empty((n, n), dtype=np.float32), np.empty((n, n), dtype=np.float32)

    def write(start: int, stop: int) -> None:
        _write_whole(start, stop, data, found, how, gram, cross)

    threads.run_in_blocks(write, n, _BLOCK_ITEMS)
    return gram, cross


def largest_entries(
    data: Sequences, found: Occurrences, how: PairWeights, scales: Float64, n_gram: int, n_cross: int
) -> tuple[Kept, Kept]:
    """Return the largest entries of the rows of G without its diagonal, and those of the columns of C.

    Args:
        scales: Float64 (n_items,); entries for item j are compared after multiplication with scales[j].
        n_gram: Entries kept of a row of G; the diagonal is kept besides.
        n_cross: Entries kept of a column of C, all above 0; that of the target itself is kept besides. It is 0, but the
            target is an input nevertheless: what it leads to is never the target again.
    """
    n = data.n_items
    kept = tuple(
        Kept(np.empty((n, width), np.int32), np.empty((n, width), np.float32), np.zeros(n, np.int64))
        for width in (n_gram + 1, n_cross + 1)
    )

    def write(start: int, stop: int) -> None:
        _write_largest(start, stop, data, found, how, scales, kept[0], kept[1])

    threads.run_in_blocks(write, n, _BLOCK_ITEMS)
    return kept[0], kept[1]


@compiled
def _write_whole(
    start: int, stop: int, data: Sequences, found: Occurrences, how: PairWeights, gram: Float32, cross: Float32
) -> None:  # pragma: no cover  # compiled; tests/reference/next_item.py
    later = np.empty((2, how.window + 1))
    own_gram, own_cross = np.empty(data.n_items), np.empty(data.n_items)
    for item in range(start, stop):
        own_gram[:] = 0
        own_cross[:] = 0
        add_pairs(item, data, found, how, later, own_gram, own_cross)
        for other in range(data.n_items):
            gram[item, other] = own_gram[other]
            cross[item, other] = own_cross[other]


@compiled
def _write_largest(
    start: int,
    stop: int,
    data: Sequences,
    found: Occurrences,
    how: PairWeights,
    scales: Float64,
    gram: Kept,
    cross: Kept,
) -> None:  # pragma: no cover  # compiled; tests/reference/next_item.py
    later = np.empty((2, how.window + 1))
    own_gram, own_cross = np.zeros(data.n_items), np.zeros(data.n_items)
    keys = np.empty(max(gram.columns.shape[1], cross.columns.shape[1]))
    for item in range(start, stop):
        add_pairs(item, data, found, how, later, own_gram, own_cross)
        width = gram.columns.shape[1] - 1
        n_kept = 0
        for other in range(data.n_items):
            if other != item and own_gram[other] != 0:
                key = abs(own_gram[other]) * scales[other]
                n_kept = push_bounded(keys[:width], gram.columns[item], n_kept, key, other)
        gram.columns[item, n_kept] = item
        _sort_and_fill(gram, item, n_kept + 1, own_gram)
        width = cross.columns.shape[1] - 1
        n_kept = 0
        for other in range(data.n_items):
            if other != item and own_cross[other] > 0:
                n_kept = push_bounded(
                    keys[:width], cross.columns[item], n_kept, own_cross[other] * scales[other], other
                )
        cross.columns[item, n_kept] = item
        _sort_and_fill(cross, item, n_kept + 1, own_cross)
        own_gram[:] = 0
        own_cross[:] = 0


@compiled
def _sort_and_fill(kept: Kept, item: int, length: int, row: Float64) -> None:  # pragma: no cover  # compiled
    """Sort the columns of a row, and copy their values."""
    kept.columns[item, :length].sort()
    for at in range(length):
        kept.values[item, at] = row[kept.columns[item, at]]
    kept.lengths[item] = length
