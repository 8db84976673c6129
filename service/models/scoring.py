"""Scores and top-n (pure): which items, in which order, with which score.

Invariant: a list is the n best by (score descending, item row ascending), where the score is `exact_scores`, one fixed
float64 routine whose result for an item depends on neither the other items asked for, nor threads, nor BLAS. The fast
float32 product only chooses candidates, and a bound on its rounding error proves that none was missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.snapshot import ModelSnapshot

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]

_MARGIN: Final = 32
_EPSILON: Final = float(np.finfo(np.float32).eps)
_NO_ROWS: Final = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Ranking:
    """An ordered list: rows int64 (m,) and scores float64 (m,), best first; m may be less than was asked for."""

    rows: Rows
    scores: Scores


def exact_scores(snapshot: ModelSnapshot, user_row: int, rows: Rows) -> Scores:
    """Score some items for a user by the one routine that decides order.

    Args:
        snapshot: the model.
        user_row: the user.
        rows: int64 (m,), item rows in any order.

    Returns:
        float64 (m,), in the order of `rows`, not clipped to the rating scale (clipping would make ties of the best).
    """
    products = snapshot.item_factors[rows].astype(np.float64)
    products *= snapshot.user_factors[user_row]
    # A row-wise sum over contiguous memory adds in an order that depends on k alone; a BLAS product would not promise
    # that.
    scores: Scores = products.sum(axis=1)
    scores += snapshot.item_bias[rows]
    scores += snapshot.global_mean + float(snapshot.user_bias[user_row])
    return scores


def exact_similarities(snapshot: ModelSnapshot, item_row: int, rows: Rows) -> Scores:
    """Cosine between one item's factors and others', float64 (m,), by a routine as fixed as `exact_scores`."""
    products = snapshot.item_factors[rows].astype(np.float64)
    products *= snapshot.item_factors[item_row]
    similarities: Scores = products.sum(axis=1)
    similarities /= snapshot.item_norms[rows].astype(np.float64) * float(snapshot.item_norms[item_row])
    return similarities


def personal(
    snapshot: ModelSnapshot,
    user_row: int,
    n: int,
    *,
    offset: int = 0,
    exclude: Rows = _NO_ROWS,
    include: Rows | None = None,
) -> Ranking:
    """Rank the items that a user has not seen.

    Args:
        snapshot: the model.
        user_row: the user.
        n: how many to return at most.
        offset: how many of the best to leave out first.
        exclude: int64, rows never to return.
        include: int64 unique rows, the only candidates; None for the whole catalogue.

    Returns:
        Places offset to offset + n of the order.
    """
    if include is not None:
        rows = np.setdiff1d(include, np.concatenate([snapshot.seen_rows(user_row), exclude]))
        return _ordered(rows, exact_scores(snapshot, user_row, rows), offset, n)
    user = snapshot.user_factors[user_row]
    approximate = snapshot.item_factors @ user
    approximate += snapshot.item_bias
    approximate[snapshot.seen_rows(user_row)] = -np.inf
    approximate[exclude] = -np.inf
    # |fl(x.y) - x.y| <= k u |x||y| (Higham, Accuracy and Stability of Numerical Algorithms, 3.1); the constants are
    # generous.
    norm = float(np.sqrt(user @ user)) * snapshot.largest_item_norm + snapshot.largest_item_bias
    bound = (snapshot.n_factors + 8) * _EPSILON * norm
    constant = snapshot.global_mean + float(snapshot.user_bias[user_row])
    return _best(approximate, constant, bound, lambda rows: exact_scores(snapshot, user_row, rows), offset, n)


def similar(snapshot: ModelSnapshot, item_row: int, n: int) -> Ranking:
    """Rank all other items by the cosine of their factors to one item's."""
    approximate = snapshot.item_factors @ snapshot.item_factors[item_row]
    approximate /= snapshot.item_norms * snapshot.item_norms[item_row]
    approximate[item_row] = -np.inf
    bound = (snapshot.n_factors + 16) * _EPSILON
    return _best(approximate, 0.0, bound, lambda rows: exact_similarities(snapshot, item_row, rows), 0, n)


def popular(
    snapshot: ModelSnapshot, n: int, *, offset: int = 0, exclude: Rows = _NO_ROWS, include: Rows | None = None
) -> Ranking:
    """Rank items by popularity; the arguments are those of `personal`."""
    rows = snapshot.popular_rows
    if include is not None:
        rows = rows[np.isin(rows, include)]
    if exclude.size:
        # Enough of the head that `exclude` cannot empty it: cheaper than testing the whole catalogue.
        head = rows[: offset + n + exclude.size]
        rows = head[~np.isin(head, exclude)]
    rows = rows[offset : offset + n]
    return Ranking(rows, snapshot.popularity[rows].astype(np.float64))


def _best(
    approximate: NDArray[np.float32],
    constant: float,
    bound: float,
    exact: Callable[[Rows], Scores],
    offset: int,
    n: int,
) -> Ranking:
    """Return places offset to offset + n by exact score; -inf in `approximate` takes an item out."""
    wanted = offset + n
    size = wanted + _MARGIN
    while size < approximate.size:
        rows = np.argpartition(approximate, -size)[-size:]
        cutoff = float(approximate[rows[0]])
        if cutoff == -np.inf:
            # Fewer items are left than we took: these are all of them.
            rows = rows[approximate[rows] > -np.inf]
            return _ordered(rows, exact(rows), offset, n)
        scores = exact(rows)
        ranking = _ordered(rows, scores, 0, wanted)
        # Everything outside scores at most this; if our last place beats it, nothing outside belongs into the list.
        if ranking.scores[-1] > cutoff + constant + bound:
            return Ranking(ranking.rows[offset:], ranking.scores[offset:])
        size *= 4
    rows = np.flatnonzero(approximate > -np.inf)
    return _ordered(rows, exact(rows), offset, n)


def _ordered(rows: Rows, scores: Scores, offset: int, n: int) -> Ranking:
    order = np.lexsort((rows, -scores))[offset : offset + n]
    return Ranking(rows[order], scores[order])
