"""Beyond-accuracy measures of lists (pure): coverage, inequality, novelty and popularity.

All are of the first k places of the judged users' lists; count_i is the number of training interactions of item i.

==================  ================================================================================================
coverage@k          items in at least one list / items in the catalogue
gini@k              sum over items in ascending order of n_i of (2 j - N - 1) n_i / ((N - 1) sum n_i), where n_i is the
                    number of lists with item i, j = 1..N its place in that order and N the size of the catalogue: 0 if
                    all items are shown equally often, 1 if all lists hold the same single item (Castells, Hurley and
                    Vargas, "Novelty and diversity in recommender systems", Recommender Systems Handbook, 2015)
novelty@k           -log2(max(1, count_i) / users with training interactions), the mean over a list, then over users:
                    mean self-information in bits (Zhou et al., "Solving the apparent diversity-accuracy dilemma of
                    recommender systems", PNAS 107(10), 2010)
popularity_bias@k   (P_lists - P_profiles) / P_profiles, where P is the mean over users of the mean count_i of the items
                    in the user's list, or training interactions: 0 if lists are as popular as profiles, 1 if twice
                    (Abdollahpouri et al., "The unfairness of popularity bias in recommendation", RMSE workshop at
                    RecSys 2019, for one group of all users)
==================  ================================================================================================

Empty cases: coverage and gini of no list are undefined (None); gini of a catalogue of one item is 0. A user with an
empty list does not count in novelty and popularity_bias, nor one without training interactions in popularity_bias.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.top_n_lists import NO_ITEM
from service.training.interactions import Int64, Interactions

Lists = NDArray[np.int32]
"""(m, k), item rows, one list per judged user; -1 where a list has ended."""

EXPOSURE_MEASURES: Final = ("coverage", "gini", "novelty", "popularity_bias")


class Popularity(NamedTuple):
    """The popularity of items and profiles on the training side."""

    counts: Int64  # (n_items,), training interactions of each item
    n_users: int  # users with training interactions
    of_profiles: NDArray[np.float64]  # float64 (users,), the mean count of a user's training items, or NaN

    @classmethod
    def of(cls, train: Interactions) -> "Popularity":
        """Count the training side of a split."""
        counts = np.bincount(train.item_rows, minlength=len(train.items)).astype(np.int64)
        lengths = np.bincount(train.user_rows, minlength=len(train.users))
        sums = np.bincount(train.user_rows, weights=counts[train.item_rows], minlength=len(train.users))
        with np.errstate(invalid="ignore"):
            return cls(counts, int(np.count_nonzero(lengths)), sums / lengths)


def coverage(lists: Lists, n_items: int) -> float | None:
    """Return the share of the catalogue that is in at least one list; None without a list."""
    if not lists.size:
        return None
    return float(np.count_nonzero(_exposures(lists, n_items)) / n_items)


def gini(lists: Lists, n_items: int) -> float | None:
    """Return how unequally often items are shown, 0 to 1; None if none is."""
    exposures = np.sort(_exposures(lists, n_items)).astype(np.float64)
    total = float(exposures.sum())
    if not total:
        return None
    if n_items == 1:
        return 0.0
    places = np.arange(1, n_items + 1)
    return float(np.dot(2 * places - n_items - 1, exposures) / ((n_items - 1) * total))


def novelty(lists: Lists, popularity: Popularity) -> NDArray[np.float64]:
    """Return the mean self-information of each list in bits, float64 (m,); NaN for an empty list."""
    information = -np.log2(np.maximum(1, popularity.counts) / max(1, popularity.n_users))
    return _list_means(lists, information)


def mean_popularity(lists: Lists, popularity: Popularity) -> NDArray[np.float64]:
    """Return the mean training count of each list's items, float64 (m,); NaN for an empty list."""
    return _list_means(lists, popularity.counts.astype(np.float64))


def _exposures(lists: Lists, n_items: int) -> Int64:
    return np.bincount(lists[lists != NO_ITEM], minlength=n_items).astype(np.int64)


def _list_means(lists: Lists, values: NDArray[np.float64]) -> NDArray[np.float64]:
    is_item = lists != NO_ITEM
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = np.where(is_item, values[lists], 0.0).sum(axis=1) / is_item.sum(axis=1)
    return means
