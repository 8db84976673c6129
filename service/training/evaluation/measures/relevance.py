"""Which items of which users a ranking should have found: the held-out side of a split, as a ranking measure needs it.

Invariant: only users with at least one relevant item are in it, so that no measure divides by nothing; how many were
left out for having none is counted.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.leakage import is_member, pairs
from service.training.interactions import Int64, Interactions


@dataclass(frozen=True, eq=False)
class Relevance:
    """The judged users and their relevant items.

    Attributes:
        user_rows: Int64 (m,), the judged users, ascending.
        counts: Int64 (m,), how many relevant items each has, at least 1.
        item_rows: Int64 (sum of counts,), user after user, ascending within one.
        n_items: How many items there are.
        n_without: Held-out users without a relevant item, who are not judged.
    """

    user_rows: Int64
    counts: Int64
    item_rows: Int64
    n_items: int
    n_without: int

    def __len__(self) -> int:
        return int(self.user_rows.size)

    def hits(self, lists: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Say which places of some lists hold a relevant item.

        Args:
            lists: Int (m, k), item rows, one list per judged user; -1 where a list has ended.

        Returns:
            bool (m, k).
        """
        width = self.n_items + 1  # so that the -1 of one user is no item of the one before
        relevant = np.repeat(np.arange(len(self)), self.counts) * width + self.item_rows
        shown = np.arange(len(self))[:, np.newaxis] * width + lists
        return is_member(shown.ravel(), relevant).reshape(lists.shape)

    def of_users(self, is_kept: NDArray[np.bool_]) -> "Relevance":
        """Return what is left when only some of the judged users are.

        Args:
            is_kept: Bool (m,).
        """
        kept = np.repeat(is_kept, self.counts)
        rows, counts = self.user_rows[is_kept], self.counts[is_kept]
        return Relevance(rows, counts, self.item_rows[kept], self.n_items, self.n_without)

    def of_items(self, is_kept: NDArray[np.bool_]) -> "tuple[Relevance, NDArray[np.bool_]]":
        """Return what is left when only some items are relevant.

        Args:
            is_kept: Bool (n_items,).

        Returns:
            The rest, and which of the judged users are in it, bool (m,).
        """
        kept = is_kept[self.item_rows]
        index = np.repeat(np.arange(len(self)), self.counts)
        counts = np.bincount(index[kept], minlength=len(self))
        has_any = counts > 0
        rest = Relevance(
            self.user_rows[has_any],
            counts[has_any],
            self.item_rows[kept],
            self.n_items,
            self.n_without + int(np.count_nonzero(~has_any)),
        )
        return rest, has_any

    def sample(self, most: int | None, rng: np.random.Generator) -> "Relevance":
        """Return a random part of at most so many users; all of them where `most` is None or not less."""
        if most is None or most >= len(self):
            return self
        is_kept = np.zeros(len(self), dtype=bool)
        is_kept[rng.permutation(len(self))[:most]] = True
        return self.of_users(is_kept)


def relevant(test: Interactions, *, relevant_from: float | None = None) -> Relevance:
    """Return what the held-out interactions call relevant.

    Args:
        test: The held-out side of a split.
        relevant_from: The least rating that makes an item relevant; None: every held-out item is.
    """
    chosen: Any = slice(None) if relevant_from is None else test.ratings >= relevant_from
    n_items = len(test.items)
    keys = np.sort(pairs(test)[chosen])
    user_rows, counts = np.unique(keys // max(1, n_items), return_counts=True)
    n_held_out = np.unique(test.user_rows).size
    return Relevance(
        user_rows, counts.astype(np.int64), keys % max(1, n_items), n_items, int(n_held_out - user_rows.size)
    )
