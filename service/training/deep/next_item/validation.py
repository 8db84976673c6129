"""The lists of a softmax on interactions that were set aside: each judged user's last one."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.deep.batches.recent_histories import RecentHistories
from service.training.interactions import Float32, Float64, Int64, Interactions

# A hidden item has a gain in a list of this length.
LENGTH: Final = 10
_MOST_USERS: Final = 1000
_LEAST_POSITIVES: Final = 3
_SCORES_AT_ONCE: Final = 1 << 22

RankCandidates = Callable[[Float32, Int64], Float32]
"""(users, float32 (b, k); rows of items, int64 (b, c)) -> their scores, float32 (b, c)."""


def last_of_users(data: Interactions, is_positive: NDArray[np.bool_], rng: np.random.Generator) -> Int64:
    """Return the last positive interaction of users drawn at random, of those with a few: positions, int64 (m,).

    Args:
        data: The interactions; the order of time decides which is the last.
        is_positive: Bool (n,), which interactions are chosen items.
    """
    histories = RecentHistories(data, 1)
    order = histories.order[is_positive[histories.order]]
    users = data.user_rows[order]
    is_last = np.ones(users.size, dtype=bool)
    is_last[:-1] = users[1:] != users[:-1]
    counts = np.bincount(users, minlength=len(data.users))
    candidates = order[is_last & (counts[users] >= _LEAST_POSITIVES)]
    # At most a tenth of what is learnt.
    n_judged = min(candidates.size, _MOST_USERS, order.size // 10)
    return np.sort(rng.permutation(candidates)[:n_judged])


class NextValidation:
    """The place of each hidden item in the list of its user.

    Args:
        data: The interactions.
        positions: Int64 (m,), the hidden ones.
        is_known: Bool (n_items,), the items that a list may hold.
    """

    def __init__(self, data: Interactions, positions: Int64, is_known: NDArray[np.bool_]) -> None:
        self._hidden: Final = data.item_rows[positions].astype(np.int64)
        self._unknown: Final = np.flatnonzero(~is_known)
        histories = RecentHistories(data, 1)
        users = data.user_rows[positions]
        items = data.item_rows[histories.order].astype(np.int64)
        self._seen: Final = [
            items[histories.starts[user] : place]
            for user, place in zip(users.tolist(), histories.places[positions].tolist(), strict=True)
        ]

    def gains(self, users: Float32, items: Float32) -> Float64:
        """Return the gain of each hidden item in the list of all items that its user did not have before: float64 (m,).

        The mean is NDCG@10.

        Args:
            users: Float32 (m, k), the users at that moment.
            items: Float32 (n_items, k).
        """
        gains = np.zeros(self._hidden.size)
        for block, scores in self._blocks(users, items):
            gains[block] = _gains(scores, scores[np.arange(len(scores)), self._hidden[block]])
        return gains

    def ranked_gains(self, users: Float32, items: Float32, n_candidates: int, rank: RankCandidates) -> Float64:
        """Return the gains in lists of the items with the largest products, ordered by other scores: float64 (m,).

        Args:
            users: Float32 (m, k), the users at that moment.
            items: Float32 (n_items, k).
            n_candidates: How many items with the largest products are ordered.
            rank: Returns the scores that order them.
        """
        gains = np.zeros(self._hidden.size)
        n_candidates = min(n_candidates, len(items))
        for block, products in self._blocks(users, items):
            candidates = np.argpartition(products, -n_candidates, axis=1)[:, -n_candidates:]
            scores = rank(users[block], candidates)
            # The candidates of a user with nearly all items include items that the user has.
            scores[np.isneginf(np.take_along_axis(products, candidates, 1))] = -np.inf
            is_own = candidates == self._hidden[block, np.newaxis]
            gains[block] = _gains(scores, np.where(is_own, scores, -np.inf).max(axis=1))
        return gains

    def _blocks(self, users: Float32, items: Float32) -> Iterator[tuple[slice, Float32]]:
        """Return the products of some users at a time with all items; -inf for those that no list holds."""
        n = max(1, _SCORES_AT_ONCE // max(1, len(items)))
        for start in range(0, self._hidden.size, n):
            block = slice(start, start + n)
            scores = users[block] @ items.T
            scores[:, self._unknown] = -np.inf
            for row, seen in enumerate(self._seen[block]):
                scores[row, seen] = -np.inf
            yield block, scores


def _gains(scores: Float32, own: Float32) -> Float64:
    """Return the gains of hidden items with the scores `own`, (b,), among all scores, (b, m): float64 (b,).

    The gain at place p, from 0, is 1 / log2(p + 2). An item comes after all with equal scores, which do not show its
    place. An item with the score -inf is in no list, and its gain is 0.
    """
    places = (scores >= own[:, np.newaxis]).sum(axis=1) - 1
    is_listed = (own > -np.inf) & (places < LENGTH)
    return np.where(is_listed, 1 / np.log2(np.maximum(places, 0) + 2), 0)
