"""Measures taken apart by user, so that users can be drawn again, grouped and compared.

Invariant: a measure of any multiset of users is `apply_shape(sum of their sums / sum of their counts)`. An error is
weighed by ratings and a ranking measure by users, as their definitions have it, because that is what is counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import UsageError
from service.training.evaluation.measures.beyond_accuracy import (
    EXPOSURE_MEASURES,
    Lists,
    Popularity,
    coverage,
    gini,
    mean_popularity,
    novelty,
)
from service.training.evaluation.measures.prediction_error import RATING_MEASURES
from service.training.evaluation.measures.ranking import RANKING_MEASURES
from service.training.evaluation.measures.relevance import Relevance
from service.training.interactions import Int64, Interactions

Shape = Literal["mean", "root", "excess"]
Float64 = NDArray[np.float64]

# The longest list that the service gives.
MAX_K = 500
_LOWER_IS_BETTER = {"rmse", "mae", "gini", "popularity_bias"}


@dataclass(frozen=True, eq=False)
class Tally:
    """One measure by user.

    Attributes:
        user_rows: Int64 (m,), ascending.
        sums: Float64 (m,).
        counts: Float64 (m,), above 0.
        shape: What makes the measure of the ratio: nothing ("mean"), its root, or how far it exceeds 1.
    """

    user_rows: Int64
    sums: Float64
    counts: Float64
    shape: Shape = "mean"

    def value(self, is_kept: NDArray[np.bool_] | None = None) -> float | None:
        """Return the measure over all users, or some of them; None over nobody.

        Args:
            is_kept: Bool (m,), the users that count.
        """
        sums, counts = (self.sums, self.counts) if is_kept is None else (self.sums[is_kept], self.counts[is_kept])
        total = float(counts.sum())
        return float(apply_shape(self.shape, np.asarray(sums.sum() / total))) if total else None


def apply_shape(shape: Shape, ratio: Float64) -> Float64:
    """Return a measure, given its ratio; of any shape, float64."""
    if shape == "root":
        return np.asarray(np.sqrt(ratio))
    return ratio - 1 if shape == "excess" else ratio


@dataclass(frozen=True)
class MeasureName:
    """A measure's name taken apart, such as "ndcg@10".

    Attributes:
        family: "ndcg".
        k: 10; None for an error of predicted ratings.
    """

    family: str
    k: int | None = None

    @classmethod
    def parse(cls, text: str) -> "MeasureName":
        """Read a name.

        Raises:
            UsageError: There is no such measure, or its k is missing, too small or too large.
        """
        family, at, k_text = text.strip().partition("@")
        if family in RATING_MEASURES and not at:
            return cls(family)
        if family not in RANKING_MEASURES and family not in EXPOSURE_MEASURES:
            offered = ", ".join((*RATING_MEASURES, *(f"{name}@k" for name in (*RANKING_MEASURES, *EXPOSURE_MEASURES))))
            raise UsageError(f"there is no measure {text!r}; there is {offered}")
        k = int(k_text) if k_text.isascii() and k_text.isdigit() else 0
        if not 1 <= k <= MAX_K:
            raise UsageError(f"{text!r} needs the length of the lists: {family}@10, for example, and at most {MAX_K}")
        return cls(family, k)

    def __str__(self) -> str:
        return self.family if self.k is None else f"{self.family}@{self.k}"

    @property
    def is_error(self) -> bool:
        """Whether it measures predicted ratings and not lists."""
        return self.k is None

    @property
    def lower_is_better(self) -> bool:
        """Whether less of it is better."""
        return self.family in _LOWER_IS_BETTER


def all_measures(ks: Sequence[int]) -> list[MeasureName]:
    """Return every measure, with each k."""
    families = (*RANKING_MEASURES, *EXPOSURE_MEASURES)
    return [
        *(MeasureName(family) for family in RATING_MEASURES),
        *(MeasureName(family, k) for family in families for k in ks),
    ]


def error_tallies(predicted: Float64, test: Interactions) -> dict[str, Tally]:
    """Return the errors of predicted ratings by user.

    Args:
        predicted: Float64 (n,), in the order of `test`.
        test: What was predicted.
    """
    difference = predicted - test.ratings.astype(np.float64)
    users, index, counts = np.unique(test.user_rows.astype(np.int64), return_inverse=True, return_counts=True)

    def tally(values: Float64, shape: Shape) -> Tally:
        return Tally(users, np.bincount(index, weights=values).astype(np.float64), counts.astype(np.float64), shape)

    return {"rmse": tally(np.square(difference), "root"), "mae": tally(np.abs(difference), "mean")}


def ranking_tallies(names: Iterable[MeasureName], lists: Lists, relevance: Relevance) -> dict[str, Tally]:
    """Return the ranking measures among `names` by user.

    Args:
        names: Measures; those of other kinds are passed over.
        lists: Int32 (m, at least the largest k), one per user of `relevance`; -1 where a list has ended.
        relevance: What should be in them.
    """
    hits, ones = relevance.hits(lists), np.ones(len(relevance))
    return {
        str(name): Tally(relevance.user_rows, RANKING_MEASURES[name.family](hits[:, : name.k], relevance.counts), ones)
        for name in names
        if name.family in RANKING_MEASURES
    }


def exposure_tallies(
    names: Iterable[MeasureName], lists: Lists, user_rows: Int64, popularity: Popularity
) -> tuple[dict[str, Tally], dict[str, float | None]]:
    """Return the measures among `names` of what lists show.

    Args:
        names: Measures; those of other kinds are passed over.
        lists: Int32 (m, at least the largest k); -1 where a list has ended.
        user_rows: Int64 (m,), whose they are.
        popularity: What the training data says.

    Returns:
        Those that are made of users, and those that are of all lists together.
    """
    by_user: dict[str, Tally] = {}
    together: dict[str, float | None] = {}
    n_items = popularity.counts.size
    for name in names:
        cut = lists[:, : name.k]
        if name.family == "coverage":
            together[str(name)] = coverage(cut, n_items)
        elif name.family == "gini":
            together[str(name)] = gini(cut, n_items)
        elif name.family == "novelty":
            values = novelty(cut, popularity)
            is_known = np.isfinite(values)
            by_user[str(name)] = Tally(user_rows[is_known], values[is_known], np.ones(int(is_known.sum())))
        elif name.family == "popularity_bias":
            listed, own = mean_popularity(cut, popularity), popularity.of_profiles[user_rows]
            is_known = np.isfinite(listed) & np.isfinite(own)
            by_user[str(name)] = Tally(user_rows[is_known], listed[is_known], own[is_known], "excess")
    return by_user, together
