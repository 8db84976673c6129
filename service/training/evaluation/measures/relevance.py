"""The relevant items of the judged users: the held-out side of a split in the form that ranking measures need.

Invariant: every judged user has at least one relevant item, so that no measure divides by zero. Users left out for
having none are counted.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.leakage import is_member, pair_keys
from service.training.interactions import Int64, Interactions


@dataclass(frozen=True, eq=False)
class Relevance:
    """The judged users and their relevant items."""

    user_rows: Int64  # (m,), the judged users, ascending
    counts: Int64  # (m,), how many relevant items each has, at least 1
    item_rows: Int64  # (sum of counts,), user after user, ascending within one
    n_items: int  # the size of the catalogue
    n_without: int  # held-out users without a relevant item, who are not judged

    def __len__(self) -> int:
        return int(self.user_rows.size)

    def hits(self, lists: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return which places of the judged users' lists, int (m, k), hold a relevant item: bool (m, k)."""
        width = self.n_items + 1  # so that -1 of one user is no item of the user before
        relevant = np.repeat(np.arange(len(self)), self.counts) * width + self.item_rows
        listed = np.arange(len(self))[:, np.newaxis] * width + lists
        return is_member(listed.ravel(), relevant).reshape(lists.shape)

    def keep_users(self, is_kept: NDArray[np.bool_]) -> "Relevance":
        """Return the relevance of the judged users of a mask, bool (m,)."""
        kept = np.repeat(is_kept, self.counts)
        rows, counts = self.user_rows[is_kept], self.counts[is_kept]
        return Relevance(rows, counts, self.item_rows[kept], self.n_items, self.n_without)

    def keep_items(self, is_kept: NDArray[np.bool_]) -> "tuple[Relevance, NDArray[np.bool_]]":
        """Return the relevance of the items of a mask, bool (n_items,).

        Returns:
            The relevance, and the mask of the judged users that remain, bool (m,).
        """
        kept = is_kept[self.item_rows]
        index = np.repeat(np.arange(len(self)), self.counts)
        counts = np.bincount(index[kept], minlength=len(self))
        has_any = counts > 0
        n_without = self.n_without + int(np.count_nonzero(~has_any))
        rest = Relevance(self.user_rows[has_any], counts[has_any], self.item_rows[kept], self.n_items, n_without)
        return rest, has_any

    def sample(self, most: int | None, rng: np.random.Generator) -> "Relevance":
        """Return at most so many users, at random; all of them if `most` is None."""
        if most is None or most >= len(self):
            return self
        is_kept = np.zeros(len(self), dtype=bool)
        is_kept[rng.permutation(len(self))[:most]] = True
        return self.keep_users(is_kept)


def relevant_items(test: Interactions, *, relevant_from: float | None = None) -> Relevance:
    """Return the relevance of held-out interactions: those rated at least `relevant_from`, or all if it is None."""
    chosen: Any = slice(None) if relevant_from is None else test.ratings >= relevant_from
    n_items = len(test.items)
    keys = np.sort(pair_keys(test)[chosen])
    user_rows, counts = np.unique(keys // max(1, n_items), return_counts=True)
    n_without = int(np.unique(test.user_rows).size - user_rows.size)
    return Relevance(user_rows, counts.astype(np.int64), keys % max(1, n_items), n_items, n_without)
