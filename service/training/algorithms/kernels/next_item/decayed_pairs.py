"""Sums over pairs of a user's interactions, weighted by how far apart they are: the statistics of next-item models.

Let x_t[j] be the weight of item j among the inputs of a user's interaction t: the input weight of the interaction p
with item j times its recency w(p, t), if p is one of the `window` interactions before t, else 0. The recency is a mean
of two powers, in proportion 1 to `long_weight`:

    w(p, t) = (short(p, t) + long_weight * long(p, t)) / (1 + long_weight)

where short(p, t) and long(p, t) are the products of the steps of the interactions p + 1 to t - 1, so that the latest
input weighs 1. Let y_t[i] be the weight of item i among the targets of t: the target weight of an interaction q >= t of
item i times (1 - look_ahead) * look_ahead^(q - t). Then

    G[j, k] = sum over users and t of x_t[j] x_t[k]
    C[j, i] = sum over users and t of x_t[j] y_t[i]     for pairs p < q with q - p <= window
              + reverse * the same sum with the direction of time turned round for the pair

No vector x_t is ever built: a row of G and a column of C are sums over the interactions of one item and at most
`window` neighbours of each on either side, since the sum over t is known in closed form: with

    S_ab(q) = sum over t > q of a(q, t) b(q, t) = 1 + step_a step_b S_ab(q + 1)     for powers a and b

the pair p <= q adds a(p, q+1) (S_ab(q) - what lies beyond the window of p) to G. tests/reference/next_item.py is the
slow equivalent.

Invariant: a row depends on the data alone; neither blocks nor threads change a bit.
"""

from typing import Final, NamedTuple

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.next_item.item_sequences import Sequences
from service.training.interactions import Float32, Float64, Int32, Int64

_USER_BLOCK: Final = 1024


class PairWeights(NamedTuple):
    """How pairs count.

    Attributes:
        window: The number of latest interactions that are inputs.
        long_weight: Proportion of the second power of recency to the first.
        look_ahead: Ratio of the weights of a target one interaction later: 0 for the next interaction alone.
        reverse: Weight of a pair in the reverse direction.
    """

    window: int
    long_weight: float
    look_ahead: float
    reverse: float


class Occurrences(NamedTuple):
    """The sequences by item, and the sums over later interactions.

    Attributes:
        starts: Int64 (n_items + 1,), the first place of each item in `places`.
        places: Int32 (n,), the entries of each item.
        begins: Int32 (n,), the first entry of the user of each entry.
        ends: Int32 (n,), one past the last entry of the user of each entry.
        sums: Float32 (n, 3), S_ab of each entry for (short, short), (short, long) and (long, long).
    """

    starts: Int64
    places: Int32
    begins: Int32
    ends: Int32
    sums: Float32


def occurrences(data: Sequences) -> Occurrences:
    """Group the entries of sequences by item."""
    starts = np.concatenate([[0], np.cumsum(data.counts)])
    places = np.argsort(data.items, kind="stable").astype(np.int32)
    lengths = np.diff(data.starts)
    begins = np.repeat(data.starts[:-1].astype(np.int32), lengths)
    ends = np.repeat(data.starts[1:].astype(np.int32), lengths)
    sums = np.zeros((data.items.size, 3), dtype=np.float32)

    def add(start: int, stop: int) -> None:
        _sum_later(start, stop, data.starts, data.short_steps, data.long_steps, sums)

    threads.run_in_blocks(add, lengths.size, _USER_BLOCK)
    return Occurrences(starts, places, begins, ends, sums)


@compiled
def _sum_later(
    start: int, stop: int, starts: Int64, short_steps: Float32, long_steps: Float32, sums: Float32
) -> None:  # pragma: no cover  # compiled
    """Write S_ab of the entries of users start to stop."""
    for user in range(start, stop):
        short, mixed, long = 0.0, 0.0, 0.0
        for q in range(starts[user + 1] - 2, starts[user] - 1, -1):
            # The first later target has weight 1; the step after it multiplies those beyond.
            a, b = np.float64(short_steps[q + 1]), np.float64(long_steps[q + 1])
            short, mixed, long = 1 + a * a * short, 1 + a * b * mixed, 1 + b * b * long
            sums[q, 0], sums[q, 1], sums[q, 2] = short, mixed, long


@compiled
def add_pairs(
    item: int,
    data: Sequences,
    found: Occurrences,
    how: PairWeights,
    later: Float64,
    gram: Float64,
    cross: Float64,
) -> None:  # pragma: no cover  # compiled; tests/reference/next_item.py
    """Add row `item` of G to `gram` and column `item` of C to `cross`, both float64 (n_items,).

    Args:
        later: Float64 (2, window + 1), a buffer.
    """
    for place in range(found.starts[item], found.starts[item + 1]):
        at = found.places[place]
        begin, end = found.begins[at], found.ends[at]
        _add_later(at, end, data, found, how, gram, cross)
        _add_earlier(at, begin, end, data, found, how, later, gram, cross)


@compiled
def _add_later(
    at: int, end: int, data: Sequences, found: Occurrences, how: PairWeights, gram: Float64, cross: Float64
) -> None:  # pragma: no cover  # compiled
    """Add the pairs of entry `at` with itself and with later ones."""
    share = how.long_weight / (1 + how.long_weight)
    c, d = 1 - share, share
    last = min(end - 1, at + how.window)
    beyond = last < end - 1
    # Powers from `at` to `last`, to be divided by those from `at` to q.
    short_all, long_all = 1.0, 1.0
    if beyond:
        for q in range(at + 1, last + 1):
            short_all *= data.short_steps[q]
            long_all *= data.long_steps[q]
    # Powers from `at` to q, and the weight of `at` as an input of the targets up to q.
    short, long, ahead = 1.0, 1.0, 0.0
    for q in range(at, last + 1):
        if q > at:
            ahead = how.look_ahead * ahead + (1 - how.look_ahead) * (c * short + d * long)
            if how.reverse > 0:
                cross[data.items[q]] += how.reverse * ahead * data.inputs[q] * data.targets[at]
            short *= data.short_steps[q]
            long *= data.long_steps[q]
        if q == last:
            break
        weight = (
            c * c * short * found.sums[q, 0]
            + c * d * (short + long) * found.sums[q, 1]
            + d * d * long * found.sums[q, 2]
        )
        if beyond:
            short_rest = short_all / short if short > 0 else 0.0
            long_rest = long_all / long if long > 0 else 0.0
            weight -= (
                c * c * short_all * short_rest * found.sums[last, 0]
                + c * d * (short_all * long_rest + long_all * short_rest) * found.sums[last, 1]
                + d * d * long_all * long_rest * found.sums[last, 2]
            )
        gram[data.items[q]] += weight * data.inputs[at] * data.inputs[q]


@compiled
def _add_earlier(
    at: int,
    begin: int,
    end: int,
    data: Sequences,
    found: Occurrences,
    how: PairWeights,
    later: Float64,
    gram: Float64,
    cross: Float64,
) -> None:  # pragma: no cover  # compiled
    """Add the pairs of entry `at` with earlier ones."""
    share = how.long_weight / (1 + how.long_weight)
    c, d = 1 - share, share
    reach = min(end - 1 - at, how.window)
    later[0, 0], later[1, 0] = 1.0, 1.0
    for m in range(1, reach + 1):
        later[0, m] = later[0, m - 1] * data.short_steps[at + m]
        later[1, m] = later[1, m - 1] * data.long_steps[at + m]
    # Powers from p to `at`, and the weights of p as an input of the targets up to `at`.
    short, long = 1.0, 1.0
    short_ahead, long_ahead = 0.0, 0.0
    fading = 1 - how.look_ahead
    for p in range(at - 1, max(begin, at - how.window) - 1, -1):
        short_ahead = fading + data.short_steps[p + 1] * short_ahead
        long_ahead = fading + data.long_steps[p + 1] * long_ahead
        fading *= how.look_ahead
        cross[data.items[p]] += (c * short_ahead + d * long_ahead) * data.inputs[p] * data.targets[at]
        short *= data.short_steps[p + 1]
        long *= data.long_steps[p + 1]
        m = min(end - 1, p + how.window) - at
        if m <= 0:
            continue
        weight = (
            c * c * short * found.sums[at, 0]
            + c * d * (short + long) * found.sums[at, 1]
            + d * d * long * found.sums[at, 2]
        )
        if at + m < end - 1:
            a, b = later[0, m], later[1, m]
            weight -= (
                c * c * short * a * a * found.sums[at + m, 0]
                + c * d * (short + long) * a * b * found.sums[at + m, 1]
                + d * d * long * b * b * found.sums[at + m, 2]
            )
        gram[data.items[p]] += weight * data.inputs[p] * data.inputs[at]
