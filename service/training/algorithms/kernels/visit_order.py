"""In which order stochastic gradient descent visits ratings, and which of them several cores may visit at once.

Invariant: the order is a function of the data and the generator alone, whatever the number of threads. Blocks of one
round have neither a user nor an item in common, so that visiting them at the same time is visiting them one after the
other, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.interactions import Float32, Int32, Int64, Interactions

# With fewer ratings a fit is over before a second core has begun to pay.
_LEAST_GRID_RATINGS: Final = 250_000
# As many groups of users as of items, and blocks that can be visited at once. A user's factors are fetched once for
# each block, so that where users have few ratings more groups cost more than they share out: at 20 ratings a user, one
# core needs 63 ns a rating with one group, 73 with 4, 90 with 8 and 100 with 16.
_GROUPS: Final = 4
_MANY_GROUPS: Final = 8
_LEAST_BLOCK_RATINGS: Final = 8  # of a user, in the mean
_LEAST_GROUP_ROWS: Final = 16


class Grouped(NamedTuple):
    """Positions put together by their key.

    Attributes:
        order: Int32 or int64 (n,), a permutation of the positions: key by key, in their order within a key.
        starts: Int64 (n_keys + 1,), where in `order` each key begins.
    """

    order: Int32 | Int64
    starts: Int64


@dataclass(frozen=True, eq=False)
class Visits:
    """Ratings in the order of an epoch's visits.

    Attributes:
        users: Int32 (n,), user rows.
        items: Int32 (n,), item rows.
        ratings: Float32 (n,).
        bounds: Int64 (n_rounds, n_blocks + 1): block b of round r is the positions from bounds[r, b] to
            bounds[r, b + 1]. Rounds follow one another; a round's blocks may be visited at once.
    """

    users: Int32
    items: Int32
    ratings: Float32
    bounds: Int64

    def epoch(self, visit: Callable[[int, int], float]) -> float:
        """Visit every rating once.

        Args:
            visit: Visits the positions from start to stop in order, and returns the sum of their squared errors.

        Returns:
            The sum of all squared errors.
        """
        return sum(_visit_round(visit, bounds) for bounds in self.bounds.tolist())


def user_by_user(data: Interactions, rng: np.random.Generator) -> Visits:
    """Put the ratings into one block, each user's together.

    Args:
        data: The ratings.
        rng: Draws the order.
    """
    order = visiting_order(data.user_rows, len(data.users), rng)
    return _visits(data, order, np.array([[0, len(data)]]))


def in_grid(data: Interactions, rng: np.random.Generator) -> Visits:
    """Cut users and items into groups, and so the ratings into a grid of blocks; a round is a diagonal of it.

    R. Gemulla, E. Nijkamp, P. J. Haas and Y. Sismanis, "Large-scale matrix factorization with distributed stochastic
    gradient descent", KDD 2011. The groups have nearly the same number of ratings, and in a block each user's ratings
    are together. A small set is a single block.

    Args:
        data: The ratings.
        rng: Draws the order.
    """
    order = visiting_order(data.user_rows, len(data.users), rng)
    n_groups = _n_groups(data)
    if n_groups == 1:
        return _visits(data, order, np.array([[0, len(data)]]))
    user_group = _dealt(data.user_rows, len(data.users), n_groups)[data.user_rows[order]]
    round_of = _dealt(data.item_rows, len(data.items), n_groups)[data.item_rows[order]]
    round_of -= user_group
    round_of %= n_groups
    blocks = grouped(round_of * np.int32(n_groups) + user_group, n_groups**2)
    ends = blocks.starts[1:].reshape(n_groups, n_groups)
    bounds = np.concatenate([blocks.starts[:-1:n_groups, np.newaxis], ends], axis=1)
    return _visits(data, order[blocks.order], bounds)


def visiting_order(user_rows: Int32, n_users: int, rng: np.random.Generator) -> Int32 | Int64:
    """Return the order in which ratings are visited: shuffled, then grouped by user in order of first appearance.

    This is scikit-surprise's order over a shuffled fold; it visits active users early.

    Args:
        user_rows: Int32 (n,).
        n_users: How many users there are.
        rng: Draws the order.

    Returns:
        int32 or int64 (n,), a permutation of the positions.
    """
    n = user_rows.size
    shuffled = _positions(n)
    rng.shuffle(shuffled)
    visitors = user_rows[shuffled]
    first_visit = np.full(n_users, n, dtype=np.int64)
    # Of several values for one place numpy keeps the last, so backwards the earliest visit stays.
    first_visit[visitors[::-1]] = np.arange(n - 1, -1, -1)
    place = np.empty(n_users, dtype=np.int32)
    place[np.argsort(first_visit, kind="stable")] = np.arange(n_users, dtype=np.int32)
    return shuffled[grouped(place[visitors], n_users).order]


def grouped(keys: Int32, n_keys: int) -> Grouped:
    """Sort positions by their keys, by counting.

    Args:
        keys: Int32 (n,), from 0 to below n_keys.
        n_keys: How many keys there are.
    """
    result = Grouped(_positions(keys.size), np.zeros(n_keys + 1, dtype=np.int64))
    _group(keys, *result)
    return result


@compiled
def _group(keys: Int32, order: Int32 | Int64, starts: Int64) -> None:  # pragma: no cover  # compiled
    """Fill `order` and `starts`, which is zero."""
    for key in keys:
        starts[key + 1] += 1
    for key in range(starts.size - 1):
        starts[key + 1] += starts[key]
    cursors = starts.copy()
    for n in range(keys.size):
        key = keys[n]
        order[cursors[key]] = n
        cursors[key] += 1


def _positions(n: int) -> Int32 | Int64:
    # Positions are most of what an order costs, and four bytes do for all sets but the largest.
    return np.arange(n, dtype=np.int32) if n <= np.iinfo(np.int32).max else np.arange(n, dtype=np.int64)


def _n_groups(data: Interactions) -> int:
    n_users, n_items, n_ratings = len(data.users), len(data.items), len(data)
    if n_ratings < _LEAST_GRID_RATINGS or min(n_users, n_items) < _MANY_GROUPS * _LEAST_GROUP_ROWS:
        return 1
    return _MANY_GROUPS if n_ratings >= _MANY_GROUPS * _LEAST_BLOCK_RATINGS * n_users else _GROUPS


def _dealt(rows: Int32, n_rows: int, n_groups: int) -> Int32:
    """Return each row's group, int32 (n_rows,): dealt out like cards, the most frequent first, to and fro."""
    turn = np.arange(n_rows, dtype=np.int32) % (2 * n_groups)
    groups = np.empty(n_rows, dtype=np.int32)
    groups[np.argsort(-np.bincount(rows, minlength=n_rows), kind="stable")] = np.minimum(turn, 2 * n_groups - 1 - turn)
    return groups


def _visit_round(visit: Callable[[int, int], float], bounds: list[int]) -> float:
    n_blocks = len(bounds) - 1
    sums = np.zeros(n_blocks)

    def visit_block(block: int, _: int) -> None:
        sums[block] = visit(bounds[block], bounds[block + 1])

    threads.in_blocks(visit_block, n_blocks, 1)
    return float(sums.sum())


def _visits(data: Interactions, order: Int32 | Int64, bounds: Int64) -> Visits:
    return Visits(data.user_rows[order], data.item_rows[order], data.ratings[order], bounds)
