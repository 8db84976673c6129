"""Validation of next-item models within a fit: the latest interactions of some users are hidden, and lists judged.

Half of the judged users hide their latest interaction alone, the other half the latest fifth of theirs. Both count
alike, because a model is asked for the next item as well as for items to come, and settings that suit one alone suit
the other badly. tests/service/training/algorithms/next_item/test_validation.py shows both.

Invariant: what is hidden depends on the sequences and the generator alone, and not on any setting.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.kernels.next_item.item_sequences import Sequences, without_latest
from service.training.evaluation.measures.ranking import ndcg
from service.training.interactions import Float64, Int64

_LENGTH: Final = 10  # of the judged lists
_HIDDEN_SHARE: Final = 0.2
_MOST_USERS: Final = 6000
_MOST_ENTRIES: Final = 2_000_000
_BATCH_BYTES: Final = 32 << 20
# Far below any score that matters, so that popularity decides between items without one.
_TIE_BREAK: Final = 1e-12

ScoreUsers = Callable[[Int64], Float64]
"""(users) -> the scores of all items for some users of `Validation.known`: float64 (m, n_items)."""


class Validation(NamedTuple):
    """Known and hidden interactions of a sample of users.

    Attributes:
        known: Their sequences without what is hidden.
        hidden_starts: Int64 (n_users + 1,), the first hidden item of each user in `hidden_items`.
        hidden_items: Int32 (m,), user after user.
        judged: Int64 (j,), the users with hidden items whose lists are judged.
    """

    known: Sequences
    hidden_starts: Int64
    hidden_items: NDArray[np.int32]
    judged: Int64

    def score(self, score_users: ScoreUsers) -> float:
        """Return the geometric mean of NDCG@10 of both halves of the judged users, between 0 and 1."""
        return self.mean(self.ndcg_of(0, self.judged.size, score_users))

    @property
    def batch_size(self) -> int:
        """The number of users whose scores of all items are in memory at a time."""
        return max(1, _BATCH_BYTES // (8 * self.known.n_items))

    def ndcg_of(self, first: int, end: int, score_users: ScoreUsers) -> Float64:
        """Return NDCG@10 of judged users first to end, float64 (end - first,).

        Args:
            first: A multiple of `batch_size`.
        """
        values = np.empty(end - first)
        for start in range(first, end, self.batch_size):
            users = self.judged[start : min(start + self.batch_size, end)]
            scores = score_users(users)
            scores += self.known.counts * _TIE_BREAK
            values[start - first : start - first + users.size] = self._ndcg(users, scores)
        return values

    def mean(self, values: Float64) -> float:
        """Return the geometric mean of both halves, given NDCG@10 of all judged users, float64 (j,)."""
        is_single = self.judged % 2 == 0
        halves = [values[half].mean() if half.any() else values.mean() for half in (is_single, ~is_single)]
        return float(np.sqrt(halves[0] * halves[1]))

    def _ndcg(self, users: Int64, scores: Float64) -> Float64:
        length = min(_LENGTH, scores.shape[1])
        relevant = np.zeros(scores.shape, dtype=bool)
        for row, user in enumerate(users.tolist()):
            scores[row, self.known.items[self.known.starts[user] : self.known.starts[user + 1]]] = -np.inf
            relevant[row, self.hidden_items[self.hidden_starts[user] : self.hidden_starts[user + 1]]] = True
        best: NDArray[Any] = np.argpartition(-scores, length - 1, axis=1)[:, :length]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        hits = np.take_along_axis(relevant, np.take_along_axis(best, order, 1), 1)
        return ndcg(hits, np.count_nonzero(relevant, axis=1))


def hide_latest(whole: Sequences, rng: np.random.Generator) -> Validation | None:
    """Hide the latest interactions of users, of a sample if there are many; None if no user has two interactions."""
    lengths = np.diff(whole.starts)
    users = np.flatnonzero(lengths)
    if whole.items.size > _MOST_ENTRIES:
        users = rng.permutation(users)
        users = np.sort(users[: int(np.searchsorted(np.cumsum(lengths[users]), _MOST_ENTRIES)) + 1])
    own = lengths[users]
    n_hidden = np.where(np.arange(users.size) % 2 == 0, 1, np.maximum(1, (own * _HIDDEN_SHARE).astype(np.int64)))
    n_hidden[own < 2] = 0
    judged = np.flatnonzero(n_hidden)
    if not judged.size:
        return None
    if judged.size > _MOST_USERS:
        judged = np.sort(rng.permutation(judged)[:_MOST_USERS])
    is_judged = np.zeros(users.size, dtype=bool)
    is_judged[judged] = True
    n_hidden[~is_judged] = 0
    starts = np.concatenate([[0], np.cumsum(n_hidden)])
    ends = whole.starts[users + 1]
    hidden = np.arange(starts[-1]) + np.repeat(ends - n_hidden - starts[:-1], n_hidden)
    return Validation(without_latest(whole, n_hidden, users), starts, whole.items[hidden], judged)
