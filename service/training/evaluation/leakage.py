"""Leakage checks: held-out interactions on the training side, and others that a model cannot be judged by (pure).

Invariant: counts are over all splits of a protocol; shares are of the held-out interactions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.training.interactions import Int64, Interactions


@dataclass
class Leakage:
    """Counts, added up split by split."""

    n_left_out: int = 0  # those that the split left out because their pair is on the training side too
    n_test: int = 0  # held-out interactions
    n_on_both_sides: int = 0  # those whose pair is on the training side of the same split, which must be none
    n_repeated: int = 0  # those whose pair is held out twice in one split
    n_cold_user: int = 0  # those of a user without training interactions
    n_cold_item: int = 0  # those of an item without training interactions
    cold_users: int = 0  # users without training interactions
    cold_items: int = 0  # items without training interactions
    n_before_own: int = 0  # those older than the latest training interaction of the same user
    n_before_any: int = 0  # those older than the latest training interaction of all
    has_times: bool = True

    def add(self, train: Interactions, test: Interactions) -> None:
        """Count one split."""
        keys = np.sort(pair_keys(test))
        self.n_test += len(test)
        self.n_on_both_sides += int(np.count_nonzero(is_member(keys, np.sort(pair_keys(train)))))
        self.n_repeated += int(np.count_nonzero(keys[1:] == keys[:-1]))
        is_cold_user = np.bincount(train.user_rows, minlength=len(train.users))[test.user_rows] == 0
        is_cold_item = np.bincount(train.item_rows, minlength=len(train.items))[test.item_rows] == 0
        self.n_cold_user += int(np.count_nonzero(is_cold_user))
        self.n_cold_item += int(np.count_nonzero(is_cold_item))
        self.cold_users += int(np.unique(test.user_rows[is_cold_user]).size)
        self.cold_items += int(np.unique(test.item_rows[is_cold_item]).size)
        if train.timestamps is None or test.timestamps is None:
            self.has_times = False
            return
        latest = np.full(len(train.users), np.iinfo(np.int64).min)
        np.maximum.at(latest, train.user_rows, train.timestamps)
        self.n_before_own += int(np.count_nonzero(test.timestamps < latest[test.user_rows]))
        self.n_before_any += int(np.count_nonzero(test.timestamps < latest.max()))

    def as_json(self) -> dict[str, Any]:
        """Return counts and shares as plain JSON values."""
        total = max(1, self.n_test)
        return {
            "test_interactions": self.n_test,
            "on_both_sides": self.n_on_both_sides,
            "left_out": self.n_left_out,
            "repeated": self.n_repeated,
            "cold_users": self.cold_users,
            "cold_items": self.cold_items,
            "of_cold_users": self.n_cold_user / total,
            "of_cold_items": self.n_cold_item / total,
            "older_than_own_training": self.n_before_own / total if self.has_times else None,
            "older_than_newest_training": self.n_before_any / total if self.has_times else None,
        }

    def notes(self) -> list[str]:
        """Return sentences for the reader of the measures."""
        notes = []
        if self.n_on_both_sides:
            notes.append(
                f"{self.n_on_both_sides} held-out pairs are on the training side too: the measures are too good."
            )
        if self.n_repeated:
            notes.append(f"{self.n_repeated} pairs are held out twice and count twice.")
        if self.has_times and self.n_before_own:
            notes.append(
                f"{self.n_before_own / max(1, self.n_test):.0%} of the held-out interactions are older than the newest "
                "training interaction of the same user: the models learnt from the future, which serving cannot do."
            )
        notes += [
            f"{n} held-out interactions are of {side} without training interactions; they count, and models predict "
            "them by their defaults."
            for n, side in ((self.n_cold_user, "users"), (self.n_cold_item, "items"))
            if n
        ]
        return notes


def n_in_history(history: csr_array, test: Interactions) -> int:
    """Return how many held-out pairs are in a model's history, CSR (n_users, n_items), ascending; must be none."""
    users = np.repeat(np.arange(history.shape[0], dtype=np.int64), np.diff(history.indptr))
    return int(np.count_nonzero(is_member(np.sort(pair_keys(test)), users * history.shape[1] + history.indices)))


def is_member(numbers: Int64, others: Int64) -> NDArray[np.bool_]:
    """Return which numbers are among the ascending others, bool (n,); several times as fast as `np.isin`."""
    if not others.size:
        return np.zeros(numbers.size, dtype=bool)
    places = np.minimum(np.searchsorted(others, numbers), others.size - 1)
    return np.asarray(others[places] == numbers)


def pair_keys(data: Interactions) -> Int64:
    """Return each interaction's pair of user and item as one number, int64 (n,)."""
    return data.user_rows.astype(np.int64) * len(data.items) + data.item_rows
