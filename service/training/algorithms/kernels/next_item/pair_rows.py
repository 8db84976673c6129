"""Rows of the pair statistics of next-item models, whole or reduced to the largest entries.

Invariant: a row depends on the data alone; neither blocks nor threads change a bit, nor does a pass over the users in
parts that continue each other's sums.
"""

from typing import Final, NamedTuple

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbours.lists import push_bounded
from service.training.algorithms.kernels.next_item.decayed_pairs import Occurrences, PairWeights, add_pairs
from service.training.algorithms.kernels.next_item.item_sequences import Sequences
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


class PairSums(NamedTuple):
    """Rows of G and columns of C, summed over the users of one part after another, without pairs that never occur.

    Attributes:
        indptr: Int64 (n + 1,).
        columns: Int32 (m,).
        gram: Float64 (m,).
        cross: Float64 (m,).
    """

    indptr: Int64
    columns: Int32
    gram: Float64
    cross: Float64


class Rows(NamedTuple):
    """The items whose rows are computed, and the sums that these begin with.

    Attributes:
        first: The first item.
        stop: The item after the last.
        before: Sums over earlier users, of these items.
    """

    first: int
    stop: int
    before: PairSums


def rows_of(first: int, stop: int, before: PairSums | None = None) -> Rows:
    """Return the rows of items first to stop, which begin with the sums over earlier users, if there are any."""
    if before is None:
        empty = np.zeros(0)
        before = PairSums(np.zeros(stop - first + 1, np.int64), np.zeros(0, np.int32), empty, empty)
    return Rows(first, stop, before)


def whole_rows(
    data: Sequences, found: Occurrences, how: PairWeights, rows: Rows | None = None
) -> tuple[Float32, Float32]:
    """Return G and the transpose of C, float32 (n_rows, n_items) each; all rows by default."""
    rows = rows_of(0, data.n_items) if rows is None else rows
    n = rows.stop - rows.first
    gram, cross = (np.empty((n, data.n_items), dtype=np.float32) for _ in range(2))

    def write(start: int, stop: int) -> None:
        _write_whole(start, stop, rows, data, found, how, gram, cross)

    threads.run_in_blocks(write, n, _BLOCK_ITEMS)
    return gram, cross


def largest_entries(
    data: Sequences,
    found: Occurrences,
    how: PairWeights,
    scales: Float64,
    n_gram: int,
    n_cross: int,
    rows: Rows | None = None,
) -> tuple[Kept, Kept]:
    """Return the largest entries of the rows of G without its diagonal, and those of the columns of C.

    Args:
        scales: Float64 (n_items,); entries for item j are compared after multiplication with scales[j].
        n_gram: Entries kept of a row of G; the diagonal is kept besides.
        n_cross: Entries kept of a column of C, all above 0; that of the target itself is kept besides. It is 0, but the
            target is an input nevertheless: what it leads to is never the target again.
        rows: All by default.
    """
    rows = rows_of(0, data.n_items) if rows is None else rows
    n = rows.stop - rows.first
    kept = tuple(
        Kept(np.empty((n, width), np.int32), np.empty((n, width), np.float32), np.zeros(n, np.int64))
        for width in (n_gram + 1, n_cross + 1)
    )

    def write(start: int, stop: int) -> None:
        _write_largest(start, stop, rows, data, found, how, scales, kept[0], kept[1])

    threads.run_in_blocks(write, n, _BLOCK_ITEMS)
    return kept[0], kept[1]


def pair_sums(data: Sequences, found: Occurrences, how: PairWeights, rows: Rows) -> PairSums:
    """Return the sums of rows over these users and the earlier ones, for rows that later users continue.

    Continued sums have the bits of a single pass over all users, because the order of additions is the same.
    """
    n, n_items = rows.stop - rows.first, data.n_items
    counts = np.zeros(n, dtype=np.int64)
    # An occurrence meets itself, and a window of others on either side.
    own = np.diff(found.starts[rows.first : rows.stop + 1]) * (2 * how.window + 1)
    most = np.minimum(n_items, own + np.diff(rows.before.indptr))
    parts: dict[int, tuple[Int32, Float64, Float64]] = {}

    def write(start: int, stop: int) -> None:
        size = int(most[start:stop].sum())
        columns, gram, cross = np.empty(size, np.int32), np.empty(size), np.empty(size)
        size = _write_sums(start, stop, rows, data, found, how, counts, columns, gram, cross)
        parts[start] = columns[:size].copy(), gram[:size].copy(), cross[:size].copy()

    threads.run_in_blocks(write, n, _BLOCK_ITEMS)
    columns, gram, cross = (np.concatenate(found) for found in zip(*(parts[s] for s in sorted(parts)), strict=True))
    return PairSums(np.concatenate([[0], np.cumsum(counts)]), columns, gram, cross)


@compiled
def _begin(row: int, before: PairSums, gram: Float64, cross: Float64) -> None:  # pragma: no cover  # compiled
    """Write the sums over earlier users into rows of zeros, float64 (n_items,) each."""
    for place in range(before.indptr[row], before.indptr[row + 1]):
        gram[before.columns[place]] = before.gram[place]
        cross[before.columns[place]] = before.cross[place]


@compiled
def _write_whole(
    start: int,
    stop: int,
    rows: Rows,
    data: Sequences,
    found: Occurrences,
    how: PairWeights,
    gram: Float32,
    cross: Float32,
) -> None:  # pragma: no cover  # compiled; tests/reference/next_item.py
    later = np.empty((2, how.window + 1))
    own_gram, own_cross = np.empty(data.n_items), np.empty(data.n_items)
    for row in range(start, stop):
        own_gram[:] = 0
        own_cross[:] = 0
        _begin(row, rows.before, own_gram, own_cross)
        add_pairs(rows.first + row, data, found, how, later, own_gram, own_cross)
        for other in range(data.n_items):
            gram[row, other] = own_gram[other]
            cross[row, other] = own_cross[other]


@compiled
def _write_sums(
    start: int,
    stop: int,
    rows: Rows,
    data: Sequences,
    found: Occurrences,
    how: PairWeights,
    counts: Int64,
    columns: Int32,
    gram: Float64,
    cross: Float64,
) -> int:  # pragma: no cover  # compiled; a test holds it to whole rows
    """Write the sums of rows start to stop one after another; returns their number."""
    later = np.empty((2, how.window + 1))
    own_gram, own_cross = np.zeros(data.n_items), np.zeros(data.n_items)
    size = 0
    for row in range(start, stop):
        _begin(row, rows.before, own_gram, own_cross)
        add_pairs(rows.first + row, data, found, how, later, own_gram, own_cross)
        begin = size
        for other in range(data.n_items):
            if own_gram[other] != 0 or own_cross[other] != 0:
                columns[size], gram[size], cross[size] = other, own_gram[other], own_cross[other]
                size += 1
        counts[row] = size - begin
        own_gram[:] = 0
        own_cross[:] = 0
    return size


@compiled
def _write_largest(
    start: int,
    stop: int,
    rows: Rows,
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
    for row in range(start, stop):
        item = rows.first + row
        _begin(row, rows.before, own_gram, own_cross)
        add_pairs(item, data, found, how, later, own_gram, own_cross)
        width = gram.columns.shape[1] - 1
        n_kept = 0
        for other in range(data.n_items):
            if other != item and own_gram[other] != 0:
                key = abs(own_gram[other]) * scales[other]
                n_kept = push_bounded(keys[:width], gram.columns[row], n_kept, key, other)
        gram.columns[row, n_kept] = item
        _sort_and_fill(gram, row, n_kept + 1, own_gram)
        width = cross.columns.shape[1] - 1
        n_kept = 0
        for other in range(data.n_items):
            if other != item and own_cross[other] > 0:
                n_kept = push_bounded(keys[:width], cross.columns[row], n_kept, own_cross[other] * scales[other], other)
        cross.columns[row, n_kept] = item
        _sort_and_fill(cross, row, n_kept + 1, own_cross)
        own_gram[:] = 0
        own_cross[:] = 0


@compiled
def _sort_and_fill(kept: Kept, row: int, length: int, values: Float64) -> None:  # pragma: no cover  # compiled
    """Sort the columns of a row, and copy their values."""
    kept.columns[row, :length].sort()
    for at in range(length):
        kept.values[row, at] = values[kept.columns[row, at]]
    kept.lengths[row] = length
