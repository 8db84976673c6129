"""Scores and top-n lists.

Invariants:

- A list is the n best by (score descending, popularity descending, item row ascending). Without knowledge of the user,
  popular items therefore come first.
- The score of an item comes from one float64 routine (`products` or `neighbour_terms`), whose result depends neither
  on the other items and users of the request nor on threads or BLAS. A float32 product chooses the candidates; a bound
  on its rounding error proves that no item is missed. In a model with an index of its items the candidates are those
  of the index, which may miss an item (`service.models.index`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.representation import UserRepresentation
from service.models.index.item_index import ItemIndex
from service.models.neighbourhood import (
    Neighbourhood,
    NeighbourScores,
    Scores,
    input_sums,
    input_terms,
    neighbour_terms,
)
from service.models.ranking.indexed_best import indexed_best
from service.models.ranking.largest_per_row import largest_per_row
from service.models.snapshot import Float32, ModelSnapshot

Rows = NDArray[np.int64]

NO_ROWS: Final[Rows] = np.empty(0, dtype=np.int64)
# Candidates beyond the length of the list.
_MARGIN: Final = 16
# Below this many lists, ranking them one by one is faster.
_MIN_BATCH: Final = 4
# Sums over the whole catalogue are faster while it has fewer items than so many times the entries to sum.
_DENSE_FROM: Final = 4


class Ranking(NamedTuple):
    """A list, best first, possibly shorter than requested.

    Attributes:
        rows: Int64 (m,).
        scores: Float64 (m,).
        is_personal: Bool (m,): whether the user's history placed the item in the list, or popularity did, because the
            user has no factors or the item no neighbours. None if all items are personal.
    """

    rows: Rows
    scores: Scores
    is_personal: NDArray[np.bool_] | None = None


class TopNRequest(NamedTuple):
    """A request for a personal list.

    Attributes:
        user_row: The user as trained; counts only without `user`.
        n: Maximum length of the list.
        offset: Number of best items to skip.
        exclude: Int64 (m,), rows to leave out besides the seen items.
        user: The user's representation, folded in; None for the trained one.
    """

    user_row: int
    n: int
    offset: int = 0
    exclude: Rows = NO_ROWS
    user: UserRepresentation | None = None


def exact_scores(snapshot: ModelSnapshot, user_row: int, rows: Rows, user: UserRepresentation | None = None) -> Scores:
    """Score items for a user by the routine that decides the order of lists.

    Args:
        user_row: The user as trained; counts only without `user`.
        rows: Int64 (m,), item rows in any order.
        user: The user's representation, folded in.

    Returns:
        float64 (m,), not clipped to the rating scale, because clipping would tie the best items.
    """
    if snapshot.neighbourhood is not None:
        return neighbour_scores(snapshot, snapshot.neighbourhood, user_row, user).scores.take(rows)
    user = user or snapshot.trained_user(user_row)
    scores = products(snapshot.item_factors.take(rows, axis=0), user.factors)
    scores += snapshot.item_bias.take(rows)
    scores += user.constant
    return scores


def personal(snapshot: ModelSnapshot, requests: Sequence[TopNRequest]) -> list[Ranking]:
    """Rank the unseen items of each request's user.

    A batch costs less than its lists one by one: one matrix product reads the item factors once, and from a few
    thousand items on they exceed a core's second-level cache.

    Returns:
        One ranking per request: places offset to offset + n, independent of the other requests.
    """
    if snapshot.neighbourhood is not None:
        return [_rank_by_neighbours(snapshot, snapshot.neighbourhood, request) for request in requests]
    if len(requests) < _MIN_BATCH or snapshot.item_index is not None:
        return [_rank_one(snapshot, request) for request in requests]
    users = _Users.of(snapshot, requests)
    approximate = users.factors @ snapshot.item_factors.T
    approximate += snapshot.item_bias
    for row, request in zip(approximate, requests, strict=True):
        _exclude(snapshot, request, row)
    size = max(request.offset + request.n for request in requests) + _MARGIN
    if size >= approximate.shape[1]:
        return [_rank_approximate(snapshot, request, row) for request, row in zip(requests, approximate, strict=True)]
    each = np.arange(len(requests))[:, np.newaxis]
    candidates, cutoffs = largest_per_row(approximate, size, each)
    # Sorted by popularity, so that a stable sort by score leaves ties in that order.
    ranks = snapshot.popular_ranks[candidates]
    ranks.sort(axis=1)
    candidates = snapshot.popular_rows[ranks]
    scores = _exact(snapshot, users, candidates)
    order = np.argsort(-scores, axis=1, kind="stable")
    candidates, scores = candidates[each, order], scores[each, order]
    # Upper bound of the scores outside the candidates: a list whose last score exceeds it is complete.
    # -inf means that excluded items are among the candidates.
    bounds = (cutoffs + users.max_exact_over_approx).tolist()
    rankings = []
    for index, request in enumerate(requests):
        end = request.offset + request.n
        if bounds[index] > -math.inf and scores[index, end - 1] > bounds[index]:
            rows = candidates[index, request.offset : end]
            is_personal = personal_flags(snapshot, request, rows)
            rankings.append(Ranking(rows, scores[index, request.offset : end], is_personal))
        else:
            rankings.append(_rank_approximate(snapshot, request, approximate[index]))
    return rankings


def personal_among(snapshot: ModelSnapshot, request: TopNRequest, include: Rows) -> Ranking:
    """Rank the items of `include`, int64 and unique, for a user."""
    rows = np.setdiff1d(include, np.concatenate([_seen_rows(snapshot, request), request.exclude]))
    ranks = snapshot.popular_ranks
    if snapshot.neighbourhood is not None:
        neighbourhood = snapshot.neighbourhood
        scores, has_neighbour = neighbour_scores(snapshot, neighbourhood, request.user_row, request.user)
        ranking = sorted_page(rows, scores.take(rows), ranks, request.offset, request.n)
        return ranking._replace(is_personal=has_neighbour.take(ranking.rows))
    scores = exact_scores(snapshot, request.user_row, rows, request.user)
    ranking = sorted_page(rows, scores, ranks, request.offset, request.n)
    return ranking._replace(is_personal=personal_flags(snapshot, request, ranking.rows))


def rank_scores(scores: Scores, ranks: Rows, n: int) -> Ranking:
    """Rank all items by exact scores.

    Args:
        scores: Float64 (n_items,); -inf excludes an item.
        ranks: Int64 (n_items,), breaks ties: the smaller comes first.
        n: Maximum length of the list.
    """
    return top_n(scores, 0.0, scores.take, ranks, 0, n)


def popular(
    snapshot: ModelSnapshot, n: int, *, offset: int = 0, exclude: Rows = NO_ROWS, include: Rows | None = None
) -> Ranking:
    """Rank items by popularity.

    Args:
        n: Maximum length of the list.
        offset: Number of best items to skip.
        exclude: Int64, rows to leave out.
        include: Int64, the candidates; None for the whole catalogue.
    """
    rows = snapshot.popular_rows
    if include is not None:
        rows = rows[np.isin(rows, include)]
    if exclude.size:
        # This much of the head suffices even if `exclude` is all in it, and costs less than the whole catalogue.
        head = rows[: offset + n + exclude.size]
        rows = head[~np.isin(head, exclude)]
    rows = rows[offset : offset + n]
    return Ranking(rows, snapshot.popularity[rows].astype(np.float64))


def products(items: Float32, others: Float32) -> Scores:
    """Return inner products over the last axis: float64 (…,).

    The sum over contiguous memory adds in an order that depends on the length alone; a BLAS product does not promise
    that.
    """
    products: Scores = np.add.reduce(np.multiply(items, others, dtype=np.float64), axis=-1)
    return products


class _Users(NamedTuple):
    """The users of a batch.

    Attributes:
        factors: Float32 (m, k).
        constants: Float64 (m,).
        max_exact_over_approx: Float64 (m,), see the snapshot's.
    """

    factors: Float32
    constants: Scores
    max_exact_over_approx: Scores

    @classmethod
    def of(cls, snapshot: ModelSnapshot, requests: Sequence[TopNRequest]) -> "_Users":
        if all(request.user is None for request in requests):
            rows = np.array([request.user_row for request in requests])
            return cls(
                snapshot.user_factors.take(rows, axis=0),
                snapshot.user_constants.take(rows),
                snapshot.max_exact_over_approx.take(rows),
            )
        users = [request.user or snapshot.trained_user(request.user_row) for request in requests]
        return cls(
            np.stack([user.factors for user in users]),
            np.array([user.constant for user in users]),
            np.array([snapshot.max_exact_over_approx_of(user) for user in users]),
        )


def _exact(snapshot: ModelSnapshot, users: _Users, rows: Rows) -> Scores:
    """Score items `rows` (m, c) for the users of a batch as `exact_scores` does: float64 (m, c)."""
    scores = products(snapshot.item_factors.take(rows, axis=0), users.factors[:, np.newaxis])
    scores += snapshot.item_bias.take(rows)
    scores += users.constants[:, np.newaxis]
    return scores


def _rank_one(snapshot: ModelSnapshot, request: TopNRequest) -> Ranking:
    if snapshot.item_index is not None:
        ranking = _rank_by_index(snapshot, snapshot.item_index, request)
        if ranking is not None:
            return ranking
    factors = snapshot.user_factors[request.user_row] if request.user is None else request.user.factors
    approximate: Float32 = snapshot.item_factors @ factors
    approximate += snapshot.item_bias
    _exclude(snapshot, request, approximate)
    return _rank_approximate(snapshot, request, approximate)


def _rank_by_index(snapshot: ModelSnapshot, index: ItemIndex, request: TopNRequest) -> Ranking | None:
    """Rank the items that the index finds; None if all have to be scored."""
    user = request.user or snapshot.trained_user(request.user_row)
    best = indexed_best(
        snapshot,
        index,
        user.factors,
        snapshot.max_exact_over_approx_of(user),
        lambda rows: exact_scores(snapshot, request.user_row, rows, user),
        np.concatenate([user.seen, request.exclude]) if request.exclude.size else user.seen,
        request.offset + request.n,
    )
    # A user with factors, so that all items are personal.
    return None if best is None else Ranking(best[0][request.offset :], best[1][request.offset :])


def _rank_by_neighbours(snapshot: ModelSnapshot, neighbourhood: Neighbourhood, request: TopNRequest) -> Ranking:
    ranking = _rank_by_inputs(snapshot, neighbourhood, request)
    if ranking is not None:
        return ranking
    scores, has_neighbour = neighbour_scores(snapshot, neighbourhood, request.user_row, request.user)
    _exclude(snapshot, request, scores)
    ranking = top_n(scores, 0.0, scores.take, snapshot.popular_ranks, request.offset, request.n)
    return ranking._replace(is_personal=has_neighbour.take(ranking.rows))


def _rank_by_inputs(snapshot: ModelSnapshot, neighbourhood: Neighbourhood, request: TopNRequest) -> Ranking | None:
    """Rank the items with a neighbour among the user's inputs; None if the list needs others.

    Without item biases all others have a neighbour term of 0, so that the positive ones come before them. The time
    does not depend on the size of the catalogue.
    """
    if neighbourhood.combine != "sum" or neighbourhood.over != "items" or snapshot.has_item_bias:
        return None
    if request.user is None and snapshot.fold_in is None:
        return None
    user = request.user or snapshot.trained_user(request.user_row)
    indptr = neighbourhood.weights.indptr
    n_entries = int((indptr[user.inputs + 1] - indptr[user.inputs]).sum())
    if n_entries * _DENSE_FROM > len(snapshot.items):
        return None
    found, scores = input_sums(neighbourhood, user.inputs, user.weights)
    keep = scores > 0
    for left_out in (user.seen, request.exclude):
        if left_out.size:
            keep[np.isin(found, left_out)] = False
    rows = np.flatnonzero(keep)
    if rows.size < request.offset + request.n:
        return None
    scores = scores[rows] + user.constant
    return sorted_page(found[rows].astype(np.int64), scores, snapshot.popular_ranks, request.offset, request.n)


def personal_flags(snapshot: ModelSnapshot, request: TopNRequest, rows: Rows) -> NDArray[np.bool_] | None:
    """Return `Ranking.is_personal` of a list from factors."""
    user = request.user
    has_factors = snapshot.has_user_factors[request.user_row] if user is None else user.factors.any()
    return None if has_factors else np.zeros(rows.size, dtype=bool)


def neighbour_scores(
    snapshot: ModelSnapshot, neighbourhood: Neighbourhood, user_row: int, user: UserRepresentation | None
) -> NeighbourScores:
    """Score all items by their neighbour terms and biases."""
    if user is None and neighbourhood.over == "items" and snapshot.fold_in is not None:
        user = snapshot.trained_user(user_row)
    if user is not None and neighbourhood.over == "items":
        result = input_terms(neighbourhood, user.inputs, user.weights)
        constant = user.constant
    else:
        result = neighbour_terms(
            neighbourhood,
            snapshot.history,
            user_row,
            global_mean=snapshot.global_mean,
            user_bias=snapshot.user_bias,
            item_bias=snapshot.item_bias,
        )
        constant = float(snapshot.user_constants[user_row])
    scores = result.scores
    scores += snapshot.item_bias
    scores += constant
    return result


def _exclude(snapshot: ModelSnapshot, request: TopNRequest, scores: Float32 | Scores) -> None:
    """Set the scores of seen and excluded items to -inf."""
    scores[_seen_rows(snapshot, request)] = -np.inf
    if request.exclude.size:
        scores[request.exclude] = -np.inf


def _seen_rows(snapshot: ModelSnapshot, request: TopNRequest) -> NDArray[np.int32]:
    return snapshot.seen_rows(request.user_row) if request.user is None else request.user.seen


def _rank_approximate(snapshot: ModelSnapshot, request: TopNRequest, approximate: Float32) -> Ranking:
    """Rank one list, given approximate scores without the user's constant, float32 (n_items,)."""
    user = request.user
    ranking = top_n(
        approximate,
        float(snapshot.max_exact_over_approx[request.user_row])
        if user is None
        else snapshot.max_exact_over_approx_of(user),
        lambda rows: exact_scores(snapshot, request.user_row, rows, user),
        snapshot.popular_ranks,
        request.offset,
        request.n,
    )
    return ranking._replace(is_personal=personal_flags(snapshot, request, ranking.rows))


def top_n(
    approximate: Float32 | Scores, bound: float, exact: Callable[[Rows], Scores], ranks: Rows, offset: int, n: int
) -> Ranking:
    """Return places offset to offset + n by exact score.

    Args:
        approximate: Float32 (n_items,); -inf excludes an item.
        bound: Largest excess of an exact score over the approximate one.
        exact: Returns the exact scores of rows.
        ranks: Int64 (n_items,), breaks ties: the smaller comes first.
        offset: Number of best items to skip.
        n: Maximum length of the list.
    """
    end = offset + n
    size = end + _MARGIN
    while size < approximate.size:
        rows = approximate.argpartition(approximate.size - size)[-size:]
        cutoff = float(approximate[rows[0]])
        if cutoff == -math.inf:
            # The candidates contain excluded items, and so all others.
            rows = rows[approximate[rows] > -np.inf]
            return sorted_page(rows, exact(rows), ranks, offset, n)
        ranking = sorted_page(rows, exact(rows), ranks, 0, end)
        if ranking.scores[-1] > cutoff + bound:
            return Ranking(ranking.rows[offset:], ranking.scores[offset:])
        size *= 4
    rows = np.flatnonzero(approximate > -np.inf)
    return sorted_page(rows, exact(rows), ranks, offset, n)


def sorted_page(rows: Rows, scores: Scores, ranks: Rows, offset: int, n: int) -> Ranking:
    """Return places offset to offset + n of items `rows`, int64 (m,), with exact scores, float64 (m,)."""
    order = np.lexsort((ranks[rows], -scores))[offset : offset + n]
    return Ranking(rows[order], scores[order])
