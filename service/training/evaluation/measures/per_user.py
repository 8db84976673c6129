"""Measures as sums and counts by user, so that users can be resampled, grouped and compared.

Invariant: a measure of any multiset of users is `apply_shape(sum of their sums / sum of their counts)`. An error counts
ratings and a ranking measure counts users, as their definitions weigh them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

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
from service.training.interactions import Float64, Int64, Interactions

Shape = Literal["mean", "root", "excess"]

# The longest list that the service answers with.
MAX_K: Final = 500
_LOWER_IS_BETTER: Final = {"rmse", "mae", "gini", "popularity_bias"}


@dataclass(frozen=True, eq=False)
class Tally:
    """One measure by user."""

    user_rows: Int64  # (m,), ascending
    sums: Float64  # (m,)
    counts: Float64  # (m,), above 0
    shape: Shape = "mean"  # how the ratio becomes the measure: as it is ("mean"), its root, or its excess over 1

    def value(self, is_kept: NDArray[np.bool_] | None = None) -> float | None:
        """Return the measure over all users or some, bool (m,); None without a user."""
        sums, counts = (self.sums, self.counts) if is_kept is None else (self.sums[is_kept], self.counts[is_kept])
        total = float(counts.sum())
        return float(apply_shape(self.shape, np.asarray(sums.sum() / total))) if total else None


def apply_shape(shape: Shape, ratio: Float64) -> Float64:
    """Return the measure of a ratio, elementwise."""
    if shape == "root":
        return np.asarray(np.sqrt(ratio))
    return ratio - 1 if shape == "excess" else ratio


@dataclass(frozen=True)
class MeasureName:
    """The name of a measure, such as "ndcg@10"."""

    family: str  # "ndcg"
    k: int | None = None  # 10; None for an error of predicted ratings

    @classmethod
    def parse(cls, text: str) -> "MeasureName":
        """Parse a name.

        Raises:
            UsageError: There is no such measure, or its k is missing, too small or too large.
        """
        family, at, k_text = text.strip().partition("@")
        if family in RATING_MEASURES and not at:
            return cls(family)
        if family not in RANKING_MEASURES and family not in EXPOSURE_MEASURES:
            known = ", ".join((*RATING_MEASURES, *(f"{name}@k" for name in (*RANKING_MEASURES, *EXPOSURE_MEASURES))))
            raise UsageError(f"There is no measure {text!r}; the measures are {known}.")
        k = int(k_text) if k_text.isascii() and k_text.isdigit() else 0
        if not 1 <= k <= MAX_K:
            raise UsageError(f"{text!r} needs the length of the lists: {family}@10, for example, and at most {MAX_K}.")
        return cls(family, k)

    def __str__(self) -> str:
        return self.family if self.k is None else f"{self.family}@{self.k}"

    @property
    def is_error(self) -> bool:
        """Whether it measures predicted ratings and not lists."""
        return self.k is None

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is better."""
        return self.family in _LOWER_IS_BETTER


def all_measures(ks: Sequence[int]) -> list[MeasureName]:
    """Return every measure, with each k."""
    families = (*RANKING_MEASURES, *EXPOSURE_MEASURES)
    return [
        *(MeasureName(family) for family in RATING_MEASURES),
        *(MeasureName(family, k) for family in families for k in ks),
    ]


def error_tallies(predicted: Float64, test: Interactions) -> dict[str, Tally]:
    """Return the errors of predicted ratings, float64 (n,) in the order of `test`, by user."""
    difference = predicted - test.ratings.astype(np.float64)
    users, index, counts = np.unique(test.user_rows.astype(np.int64), return_inverse=True, return_counts=True)

    def tally(values: Float64, shape: Shape) -> Tally:
        return Tally(users, np.bincount(index, weights=values).astype(np.float64), counts.astype(np.float64), shape)

    return {"rmse": tally(np.square(difference), "root"), "mae": tally(np.abs(difference), "mean")}


def ranking_tallies(names: Iterable[MeasureName], lists: Lists, relevance: Relevance) -> dict[str, Tally]:
    """Return the ranking measures among `names` by user of `relevance`; lists are of at least the largest k."""
    hits, ones = relevance.hits(lists), np.ones(len(relevance))
    return {
        str(name): Tally(relevance.user_rows, RANKING_MEASURES[name.family](hits[:, : name.k], relevance.counts), ones)
        for name in names
        if name.family in RANKING_MEASURES
    }


def exposure_tallies(
    names: Iterable[MeasureName], lists: Lists, user_rows: Int64, popularity: Popularity
) -> tuple[dict[str, Tally], dict[str, float | None]]:
    """Return the beyond-accuracy measures among `names`; lists are of at least the largest k.

    Returns:
        Those that are means over users, and those of all lists together.
    """
    by_user: dict[str, Tally] = {}
    of_all_lists: dict[str, float | None] = {}
    n_items = popularity.counts.size
    for name in names:
        top_k = lists[:, : name.k]
        if name.family == "coverage":
            of_all_lists[str(name)] = coverage(top_k, n_items)
        elif name.family == "gini":
            of_all_lists[str(name)] = gini(top_k, n_items)
        elif name.family == "novelty":
            values = novelty(top_k, popularity)
            is_known = np.isfinite(values)
            by_user[str(name)] = Tally(user_rows[is_known], values[is_known], np.ones(int(is_known.sum())))
        elif name.family == "popularity_bias":
            listed, own = mean_popularity(top_k, popularity), popularity.of_profiles[user_rows]
            is_known = np.isfinite(listed) & np.isfinite(own)
            by_user[str(name)] = Tally(user_rows[is_known], listed[is_known], own[is_known], "excess")
    return by_user, of_all_lists
