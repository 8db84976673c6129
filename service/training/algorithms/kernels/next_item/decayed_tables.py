"""The statistics of next-item models in the basis of a table: products with G and C, in time linear in the data.

With a table P, float32 (n_items, b), the sum z_t = sum over the inputs j of t of x_t[j] P[j] follows from that of the
interaction before it by one multiplication and one addition per column and power of recency, so that

    P' G P = sum over users and t of z_t z_t'        P' C[:, i] = sum over users and t of z_t y_t[i]

cost b^2 and b operations for each interaction. Here all earlier interactions are inputs: what lies beyond a window of
several half-lives weighs next to nothing. `decayed_pairs` defines G and C; tests/reference/next_item.py is the slow
equivalent.

Invariant: users are cut into parts by their number alone, and sums over parts are added in their order, so that neither
threads nor workers change a bit.
"""

from typing import Final, NamedTuple

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights
from service.training.algorithms.kernels.next_item.item_sequences import Sequences
from service.training.interactions import Float32, Float64

_PARTS: Final = 4
_PART_USERS: Final = 1 << 16  # of a part, where 4 parts would be larger
_MOST_PARTS: Final = 64
_BLOCK_ENTRIES: Final = 2048  # entries whose sums are in memory at a time, unless a user has more


class TableStatistics(NamedTuple):
    """P' G P, float64 (b, b), and the transpose of P' C, float32 (n_items, b)."""

    gram: Float64
    cross: Float32


def part_users(n_users: int) -> int:
    """Return the users of a part, whose sums are added to those of the parts before it."""
    return max(1, min(-(-n_users // _PARTS), max(_PART_USERS, -(-n_users // _MOST_PARTS))))


def table_statistics(data: Sequences, how: PairWeights, table: Float32) -> TableStatistics:
    """Return the statistics in the basis of a table, float32 (n_items, b)."""
    n_users, width = data.starts.size - 1, table.shape[1]
    part = part_users(n_users)
    total = TableStatistics(np.zeros((width, width)), np.zeros((data.n_items, width), dtype=np.float32))
    with threads.one_blas_thread():
        # As many parts at once as threads share, because each has a table of the items.
        for first in range(0, n_users, part * _PARTS):
            found: dict[int, TableStatistics] = {}

            def add(start: int, stop: int, first: int = first, found: dict[int, TableStatistics] = found) -> None:
                found[start] = part_statistics(data, how, table, first + start, first + stop)

            threads.run_in_blocks(add, min(part * _PARTS, n_users - first), part)
            for start in sorted(found):
                add_to(total, found[start])
    return total


def add_to(total: TableStatistics, part: TableStatistics) -> None:
    """Add the statistics of a part to the sum of those before it, in place."""
    np.add(total.gram, part.gram, out=total.gram)
    np.add(total.cross, part.cross, out=total.cross)


def part_statistics(data: Sequences, how: PairWeights, table: Float32, start: int, stop: int) -> TableStatistics:
    """Return the statistics of users start to stop, in one pass."""
    width = table.shape[1]
    gram, cross = np.zeros((width, width)), np.zeros((data.n_items, width), dtype=np.float32)
    begin = start
    while begin < stop:
        last = int(np.searchsorted(data.starts, data.starts[begin] + _BLOCK_ENTRIES, side="right")) - 1
        end = min(stop, max(begin + 1, last))
        sums = np.empty((int(data.starts[end] - data.starts[begin]), width), dtype=np.float32)
        _add_users(begin, end, data, how, table, sums, cross)
        gram += sums.T @ sums
        begin = end
    return TableStatistics(gram, cross)


@compiled
def _add_users(
    start: int, stop: int, data: Sequences, how: PairWeights, table: Float32, sums: Float32, cross: Float32
) -> None:  # pragma: no cover  # compiled; tests/reference/next_item.py
    """Write z_t of the entries of users start to stop, and add their part of the transpose of P' C."""
    width = table.shape[1]
    share = np.float32(how.long_weight / (1 + how.long_weight))
    c, d = np.float32(1) - share, share
    look_ahead, reverse = np.float32(how.look_ahead), np.float32(how.reverse)
    now = np.float32(1) - look_ahead
    short, long, ahead = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for user in range(start, stop):
        begin, end = data.starts[user], data.starts[user + 1]
        short[:] = 0
        long[:] = 0
        ahead[:] = 0
        for t in range(begin, end):
            own = sums[t - data.starts[start]]
            target, weight = cross[data.items[t]], data.targets[t]
            row, signal = table[data.items[t]], data.inputs[t]
            a, b = data.short_steps[t], data.long_steps[t]
            if t == begin:
                own[:] = 0
            else:
                # Inputs of t: those of t - 1 and t - 1 itself; the steps of t - 1 lie between the two.
                for f in range(width):
                    own[f] = c * short[f] + d * long[f]
                    ahead[f] = look_ahead * ahead[f] + now * own[f]
                    target[f] += weight * ahead[f]
            # The sums that t + 1 takes: the step of t ages all before it.
            for f in range(width):
                short[f] = a * short[f] + signal * row[f]
                long[f] = b * long[f] + signal * row[f]
        if reverse > 0:
            _add_reverse(begin, end, data, c, d, look_ahead, reverse, table, short, long, ahead, cross)


@compiled
def _add_reverse(
    begin: int,
    end: int,
    data: Sequences,
    c: np.float32,
    d: np.float32,
    look_ahead: np.float32,
    reverse: np.float32,
    table: Float32,
    short: Float32,
    long: Float32,
    later: Float32,
    cross: Float32,
) -> None:  # pragma: no cover  # compiled
    """Add the pairs of a user in the reverse direction; three buffers are overwritten."""
    short[:] = 0
    long[:] = 0
    later[:] = 0
    now = np.float32(1) - look_ahead
    for p in range(end - 2, begin - 1, -1):
        row, signal = table[data.items[p + 1]], data.inputs[p + 1]
        a, b = data.short_steps[p + 1], data.long_steps[p + 1]
        target, weight = cross[data.items[p]], reverse * data.targets[p]
        for f in range(table.shape[1]):
            later[f] = look_ahead * later[f] + signal * row[f]
            short[f] = now * later[f] + a * short[f]
            long[f] = now * later[f] + b * long[f]
            target[f] += weight * (c * short[f] + d * long[f])
