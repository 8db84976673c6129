"""The order in which stochastic gradient descent visits ratings, and the blocks that run in parallel.

Invariant: the order depends on the data and the generator alone, not on the number of threads. Blocks of one round
share no user and no item, so that visiting them in parallel or in sequence gives the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.interactions import Float32, Int32, Int64, Interactions

# With fewer ratings, a second core does not pay.
MIN_GRID_RATINGS: Final = 250_000
# Groups of users, groups of items, and blocks per round. A user's factors are fetched once per block, so that more
# groups cost time if users have few ratings: at 20 ratings per user, one core takes 63 ns per rating with one group, 73
# with 4, 90 with 8 and 100 with 16.
_GROUPS: Final = 4
_MANY_GROUPS: Final = 8
_MIN_BLOCK_RATINGS: Final = 8  # mean per user
_MIN_GROUP_ROWS: Final = 16


class KeyGroups(NamedTuple):
    """Positions grouped by key.

    Attributes:
        order: Int32 or int64 (n,), the positions, key by key and ascending within a key.
        starts: Int64 (n_keys + 1,), start of each key in `order`.
    """

    order: Int32 | Int64
    starts: Int64


class VisitedRatings(NamedTuple):
    """Ratings in the order of visits: user rows and item rows, int32 (n,), and values, float32 (n,)."""

    users: Int32
    items: Int32
    values: Float32


@dataclass(frozen=True, eq=False)
class Visits:
    """The visits of an epoch.

    Attributes:
        ratings: The ratings in order.
        bounds: Int64 (n_rounds, n_blocks + 1): block b of round r covers positions bounds[r, b] to bounds[r, b + 1].
            Rounds run in sequence, the blocks of a round in parallel.
    """

    ratings: VisitedRatings
    bounds: Int64

    def epoch(self, visit: Callable[[int, int], float]) -> float:
        """Call `visit(start, stop)` for every block, and return the sum of the squared errors that it returns."""
        return sum(_visit_round(visit, bounds) for bounds in self.bounds.tolist())


def user_by_user(data: Interactions, rng: np.random.Generator) -> Visits:
    """Return one block with the ratings grouped by user, in a random order."""
    order = visiting_order(data.user_rows, len(data.users), rng)
    return _visits(data, order, np.array([[0, len(data)]]))


def in_grid(
    data: Interactions,
    rng: np.random.Generator,
    min_ratings: int = MIN_GRID_RATINGS,
    n_groups: int | None = None,
) -> Visits:
    """Return a grid of blocks, groups of users by groups of items, in a random order; a round is a diagonal.

    R. Gemulla, E. Nijkamp, P. J. Haas and Y. Sismanis, "Large-scale matrix factorization with distributed stochastic
    gradient descent", KDD 2011. Groups have nearly equal numbers of ratings, and the ratings of a block are grouped by
    user. Without a number of groups, a set of fewer than `min_ratings` is one block. Block b of round r has the users
    of group b and the items of group (b + r) mod n_groups.
    """
    order = visiting_order(data.user_rows, len(data.users), rng)
    if n_groups is None:
        n_groups = _n_groups(data) if len(data) >= min_ratings else 1
    if n_groups == 1:
        return _visits(data, order, np.array([[0, len(data)]]))
    user_group = _balanced_groups(data.user_rows, len(data.users), n_groups)[data.user_rows[order]]
    round_of = _balanced_groups(data.item_rows, len(data.items), n_groups)[data.item_rows[order]]
    round_of -= user_group
    round_of %= n_groups
    blocks = group_by_key(round_of * np.int32(n_groups) + user_group, n_groups**2)
    ends = blocks.starts[1:].reshape(n_groups, n_groups)
    bounds = np.concatenate([blocks.starts[:-1:n_groups, np.newaxis], ends], axis=1)
    return _visits(data, order[blocks.order], bounds)


def visiting_order(user_rows: Int32, n_users: int, rng: np.random.Generator) -> Int32 | Int64:
    """Return positions shuffled, then grouped by user in order of first appearance: int32 or int64 (n,).

    This is the order of scikit-surprise over a shuffled fold; it visits active users early.
    """
    n = user_rows.size
    shuffled = _positions(n)
    rng.shuffle(shuffled)
    visitors = user_rows[shuffled]
    first_visit = np.full(n_users, n, dtype=np.int64)
    # numpy keeps the last of several assignments to one place: reversed, that is the first visit.
    first_visit[visitors[::-1]] = np.arange(n - 1, -1, -1)
    place = np.empty(n_users, dtype=np.int32)
    place[np.argsort(first_visit, kind="stable")] = np.arange(n_users, dtype=np.int32)
    return shuffled[group_by_key(place[visitors], n_users).order]


def group_by_key(keys: Int32, n_keys: int) -> KeyGroups:
    """Group positions by their keys, int32 (n,) from 0 to n_keys - 1, with a counting sort."""
    result = KeyGroups(_positions(keys.size), np.zeros(n_keys + 1, dtype=np.int64))
    _group(keys, *result)
    return result


@compiled
def _group(keys: Int32, order: Int32 | Int64, starts: Int64) -> None:  # pragma: no cover  # compiled
    """Fill `order` and `starts`, which holds zeros."""
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
    # Positions dominate the memory of an order, and four bytes suffice for all but the largest sets.
    return np.arange(n, dtype=np.int32) if n <= np.iinfo(np.int32).max else np.arange(n, dtype=np.int64)


def _n_groups(data: Interactions) -> int:
    n_users, n_items, n_ratings = len(data.users), len(data.items), len(data)
    if min(n_users, n_items) < _MANY_GROUPS * _MIN_GROUP_ROWS:
        return 1
    return _MANY_GROUPS if n_ratings >= _MANY_GROUPS * _MIN_BLOCK_RATINGS * n_users else _GROUPS


def _balanced_groups(rows: Int32, n_rows: int, n_groups: int) -> Int32:
    """Return each row's group, int32 (n_rows,), assigned by descending frequency, forwards and backwards by turns."""
    by_frequency = np.argsort(-np.bincount(rows, minlength=n_rows), kind="stable")
    position = np.arange(n_rows, dtype=np.int32) % (2 * n_groups)
    groups = np.empty(n_rows, dtype=np.int32)
    groups[by_frequency] = np.minimum(position, 2 * n_groups - 1 - position)
    return groups


def _visit_round(visit: Callable[[int, int], float], bounds: list[int]) -> float:
    n_blocks = len(bounds) - 1
    sums = np.zeros(n_blocks)

    def visit_block(block: int, _: int) -> None:
        sums[block] = visit(bounds[block], bounds[block + 1])

    threads.run_in_blocks(visit_block, n_blocks, 1)
    return float(sums.sum())


def _visits(data: Interactions, order: Int32 | Int64, bounds: Int64) -> Visits:
    return Visits(VisitedRatings(data.user_rows[order], data.item_rows[order], data.ratings[order]), bounds)
