"""Kernels that choose the best items of each user of a block by approximate scores, and score them exactly.

The approximate scores of a block of users come tile by tile: a tile is the matrix product of the block with some of the
items. Each user has a buffer of candidates. An item whose score exceeds the user's threshold is added; a full buffer is
cut to its best ones, whose least score is the new threshold. So a tile is read once, and most of it is only compared.

Invariants:

- Items are columns in the order of popularity. Of equal approximate scores the smaller columns are kept.
- The exact score of an item has the bits of `service.models.ranking.scoring.exact_scores`: numpy sums pairwise (Higham,
  "The accuracy of floating point summation", SIAM J. Sci. Comput. 14(4), 1993), and `_pairwise_sum` adds in its order.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.kernels.compiled import compiled

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

NO_COLUMN: Final = -1
# Flags that are read together, as one word.
_TOGETHER: Final = 8
# Of numpy's pairwise summation: the sums at a time, and the longest run that is not halved.
_LANES: Final = 8
_RUN: Final = 128
# Of the stack: three entries for each halving.
_DEEPEST: Final = 192


class Buffers(NamedTuple):
    """The candidates of a block of users so far.

    Attributes:
        scores: Float32 (b, c), approximate.
        columns: Int32 (b, c), ascending.
        counts: Int64 (b,), how many candidates each user has.
        thresholds: Float32 (b,), the score that a candidate must exceed. All items left out so far have at most that.
        next_seen: Int64 (b,), where the seen items of the next tile begin.
    """

    scores: Float32
    columns: Int32
    counts: Int64
    thresholds: Float32
    next_seen: Int64

    @classmethod
    def empty(cls, n_users: int, size: int, seen_indptr: Int64) -> "Buffers":
        """Return buffers that keep the `size` best items of each user."""
        # A buffer of twice the size is cut rarely, and stays in the first-level cache.
        shape = n_users, 2 * size
        return cls(
            np.empty(shape, np.float32),
            np.empty(shape, np.int32),
            np.zeros(n_users, np.int64),
            np.full(n_users, -np.inf, np.float32),
            seen_indptr[:-1].astype(np.int64),
        )


@compiled
def add_tile(
    buffers: Buffers, size: int, tile: Float32, first: int, bias: Float32, seen_indptr: Int64, seen: Int32
) -> None:  # pragma: no cover  # compiled; tests/service/generation/lists/test_block_lists.py
    """Add the best items of a tile to the candidates of a block of users.

    Args:
        buffers: The candidates, which are changed.
        size: How many items of each user are kept at least.
        tile: Float32 (b, t), the products of users and items, which are changed.
        first: The column of the tile's first item.
        bias: Float32 (t,), added to each product.
        seen_indptr: Int64 (b + 1,), where the seen items of each user begin in `seen`.
        seen: Int32, columns, ascending for each user.
    """
    n_users, width = tile.shape
    scratch = np.empty(buffers.scores.shape[1], np.float32)
    is_above = np.zeros(-(-width // _TOGETHER) * _TOGETHER, np.bool_)
    words = is_above.view(np.uint64)
    for user in range(n_users):
        scored = tile[user]
        for t in range(width):
            scored[t] += bias[t]
        place = buffers.next_seen[user]
        while place < seen_indptr[user + 1] and seen[place] < first + width:
            scored[seen[place] - first] = -np.inf
            place += 1
        buffers.next_seen[user] = place
        threshold = buffers.thresholds[user]
        scores, columns = buffers.scores[user], buffers.columns[user]
        count = buffers.counts[user]
        # Without a branch, so that vector instructions compare.
        for t in range(width):
            is_above[t] = scored[t] > threshold
        for word in range(words.size):
            if words[word] == 0:
                continue
            for t in range(word * _TOGETHER, min((word + 1) * _TOGETHER, width)):
                # The threshold may have risen since.
                if scored[t] > threshold:
                    scores[count], columns[count] = scored[t], first + t
                    count += 1
                    if count == scores.size:
                        threshold = _cut(scores, columns, size, scratch)
                        count = size
        buffers.counts[user], buffers.thresholds[user] = count, threshold


@compiled
def score_best(
    buffers: Buffers,
    size: int,
    users: Float32,
    constants: Float64,
    items: Float32,
    bias: Float32,
    scores: Float64,
) -> None:  # pragma: no cover  # compiled; tests/service/generation/lists/test_block_lists.py
    """Keep the `size` best candidates of each user, and score them exactly.

    Args:
        buffers: The candidates of all tiles, which are changed; then `thresholds` is the most that the approximate
            score of any other item can be, -inf if there is none.
        size: As for `add_tile`.
        users: Float32 (b, k), their factors.
        constants: Float64 (b,), the constant part of each user's scores.
        items: Float32 (m, k), the factors of all items.
        bias: Float32 (m,), that of all items.
        scores: Output, float64 (b, size), in the order of columns; -inf behind the candidates of a user.
    """
    k = items.shape[1]
    terms = np.empty(k)
    scratch = np.empty(buffers.scores.shape[1], np.float32)
    for user in range(users.shape[0]):
        count = buffers.counts[user]
        if count > size:
            own = buffers.scores[user, :count], buffers.columns[user, :count]
            buffers.thresholds[user] = _cut(own[0], own[1], size, scratch)
            count = size
            buffers.counts[user] = size
        for c in range(count):
            column = buffers.columns[user, c]
            for f in range(k):
                terms[f] = np.float64(items[column, f]) * np.float64(users[user, f])
            scores[user, c] = (_pairwise_sum(terms) + np.float64(bias[column])) + constants[user]
        for c in range(count, size):
            scores[user, c] = -np.inf


@compiled
def _cut(scores: Float32, columns: Int32, size: int, scratch: Float32) -> np.float32:  # pragma: no cover  # compiled
    """Keep the `size` largest scores in their order, of equal ones the first; returns the least of them."""
    n = scores.size
    scratch[:n] = scores
    least = _largest(scratch, n, size)
    n_above = 0
    for place in range(n):
        n_above += scores[place] > least
    n_equal = size - n_above
    kept = 0
    for place in range(n):
        score = scores[place]
        if score > least or (score == least and n_equal > 0):
            n_equal -= score == least
            scores[kept], columns[kept] = score, columns[place]
            kept += 1
    return least


@compiled
def _largest(values: Float32, n: int, size: int) -> np.float32:  # pragma: no cover  # compiled
    """Return the `size`-th largest of the first n values, which are reordered.

    Source: Hoare, "Algorithm 65: Find", Communications of the ACM 4(7), 1961.
    """
    left, right, wanted = 0, n - 1, size - 1
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            right = j
        elif wanted >= i:
            left = i
        else:
            break
    found: np.float32 = values[wanted]
    return found


@compiled
def _pairwise_sum(terms: Float64) -> float:  # pragma: no cover  # compiled
    """Add numbers in the order of `numpy.add.reduce` over contiguous memory: halves of halves, of up to `_RUN` each."""
    if terms.size <= _RUN:
        return _run_sum(terms, 0, terms.size)
    # A stack in place of recursion, which machine code from the disk does not survive. An empty range adds two sums.
    bounds, sums = np.empty((_DEEPEST, 2), np.int64), np.empty(_DEEPEST)
    bounds[0] = 0, terms.size
    n_bounds, n_sums = 1, 0
    while n_bounds:
        n_bounds -= 1
        start, stop = bounds[n_bounds]
        if stop == start:
            n_sums -= 1
            sums[n_sums - 1] += sums[n_sums]
        elif stop - start <= _RUN:
            sums[n_sums] = _run_sum(terms, start, stop)
            n_sums += 1
        else:
            half = (stop - start) // 2
            half -= half % _LANES
            bounds[n_bounds] = 0, 0
            bounds[n_bounds + 1] = start + half, stop
            bounds[n_bounds + 2] = start, start + half
            n_bounds += 3
    total: float = sums[0]
    return total


@compiled
def _run_sum(terms: Float64, start: int, stop: int) -> float:  # pragma: no cover  # compiled
    """Add up to `_RUN` numbers in eight sums."""
    n = stop - start
    if n < _LANES:
        few: float = 0.0
        for place in range(start, stop):
            few += terms[place]
        return few
    a, b, c, d, e, f, g, h = terms[start : start + 8]
    last = stop - n % _LANES
    for place in range(start + _LANES, last, _LANES):
        a += terms[place]
        b += terms[place + 1]
        c += terms[place + 2]
        d += terms[place + 3]
        e += terms[place + 4]
        f += terms[place + 5]
        g += terms[place + 6]
        h += terms[place + 7]
    total: float = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for place in range(last, stop):
        total += terms[place]
    return total
