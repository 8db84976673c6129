"""The lists of a softmax on interactions that were set aside: each judged user's last one."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Float32, Int64, Interactions
from service.training.recent_histories import RecentHistories

# As a hidden item's place counts in a list of this length.
LENGTH: Final = 10
_MOST_USERS: Final = 1000
_LEAST_POSITIVES: Final = 3
_SCORES_AT_ONCE: Final = 1 << 22


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

    def ndcg(self, users: Float32, items: Float32) -> float:
        """Return NDCG@10 of the hidden items among all that their users do not have before them.

        Args:
            users: Float32 (m, k), the users at that moment.
            items: Float32 (n_items, k).
        """
        gains = np.zeros(self._hidden.size)
        block = max(1, _SCORES_AT_ONCE // max(1, len(items)))
        for start in range(0, gains.size, block):
            scores = users[start : start + block] @ items.T
            hidden = self._hidden[start : start + block]
            own = scores[np.arange(hidden.size), hidden]
            scores[:, self._unknown] = -np.inf
            for row, seen in enumerate(self._seen[start : start + block]):
                scores[row, seen] = -np.inf
            places = (scores > own[:, np.newaxis]).sum(axis=1)
            gains[start : start + block] = np.where(places < LENGTH, 1 / np.log2(places + 2), 0)
        return float(gains.mean())
