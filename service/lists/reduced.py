"""Lists of the levels `cluster` and `popular`: what is popular in the user's cluster, and what is popular at all.

Invariant: `reduced_ranking` has the order and the scores of `reduced_scores`, and costs no time for the rest of the
catalogue.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.neighbourhood import Scores
from service.models.ranking import scoring
from service.models.ranking.scoring import Ranking, Rows
from service.models.snapshot import ModelSnapshot

REDUCED: Final = frozenset({"cluster", "popular"})


def reduced_ranking(
    snapshot: ModelSnapshot, level: str | None, user_row: int | None, n: int, *, offset: int = 0, exclude: Rows
) -> Ranking:
    """Rank items at a level.

    Args:
        snapshot: The model.
        level: `cluster` or `popular`.
        user_row: The user as trained; None for an unknown user, who has no cluster.
        n: Maximum length of the list.
        offset: Number of best items to skip.
        exclude: Int64, rows to leave out, seen items among them.
    """
    listed = _cluster_items(snapshot, level, user_row)
    if listed is None:
        return scoring.popular(snapshot, n, offset=offset, exclude=exclude)
    popular = snapshot.popular_rows[: offset + n + exclude.size + listed.size]
    rows = np.concatenate([listed.astype(np.int64), popular[~np.isin(popular, listed)]])
    scores = np.concatenate([_cluster_scores(listed.size), _popular_scores(snapshot, rows[listed.size :])])
    keep = np.flatnonzero(~np.isin(rows, exclude))[offset : offset + n]
    return Ranking(rows[keep], scores[keep])


def reduced_scores(snapshot: ModelSnapshot, level: str | None, user_row: int | None) -> Scores:
    """Return the scores of all items at a level: float64 (n_items,)."""
    listed = _cluster_items(snapshot, level, user_row)
    if listed is None:
        return snapshot.popularity.astype(np.float64)
    scores = _popular_scores(snapshot, np.arange(len(snapshot.items)))
    scores[listed] = _cluster_scores(listed.size)
    return scores


def _cluster_items(snapshot: ModelSnapshot, level: str | None, user_row: int | None) -> NDArray[np.int32] | None:
    clusters = snapshot.user_clusters
    if level != "cluster" or clusters is None or user_row is None:
        return None
    items: NDArray[np.int32] = clusters.items[clusters.of_users[user_row]]
    return items


def _cluster_scores(n: int) -> Scores:
    """Return the scores of a cluster's items by their place, above 1."""
    return 2 - np.arange(n) / max(1, n)


def _popular_scores(snapshot: ModelSnapshot, rows: Rows) -> Scores:
    """Return the scores of items outside of a cluster's list, 0 to below 1."""
    scores: Scores = snapshot.popularity[rows].astype(np.float64)
    scores /= float(snapshot.popularity.max(initial=0)) + 1
    return scores
