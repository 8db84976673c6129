"""Scores and top-n (pure): which items, in which order, with which score.

Invariant: a list is the n best by (score descending, popularity descending, item row ascending), so that where nothing
is known of a user, or of an item's neighbours, what is popular comes first; the score comes from one fixed float64
routine (`_products`, or `neighbourhood.terms`) whose result for an item depends neither on the other items and users
asked for, nor on threads or BLAS. The fast float32 product only chooses candidates, and a bound on its rounding error
proves that none was missed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.neighbourhood import Neighbourhood, Said, entries, terms
from service.models.snapshot import Float32, ModelSnapshot

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]

NO_ROWS: Final[Rows] = np.empty(0, dtype=np.int64)
_MARGIN: Final = 16
# Fewer lists than this cost less one by one: BLAS reads the item factors as fast, and there is less to arrange.
_FEW: Final = 4
# How many users of one item are asked what else they have seen.
_MOST_USERS: Final = 1000
_EPSILON: Final = float(np.finfo(np.float32).eps)


class Ranking(NamedTuple):
    """An ordered list, best first; it may be shorter than was asked for.

    Attributes:
        rows: Int64 (m,).
        scores: Float64 (m,).
        is_personal: Of a personal list: bool (m,), which items are there for what the user did; the others are what
            is left when nothing is known of the user, or no neighbour speaks of an item. None: all of them are.
    """

    rows: Rows
    scores: Scores
    is_personal: NDArray[np.bool_] | None = None


class TopNRequest(NamedTuple):
    """A personal list to rank from the whole catalogue.

    Attributes:
        user_row: The user.
        n: How many to return at most.
        offset: How many of the best to leave out first.
        exclude: Int64 (m,), rows never to return.
    """

    user_row: int
    n: int
    offset: int = 0
    exclude: Rows = NO_ROWS


def exact_scores(snapshot: ModelSnapshot, user_row: int, rows: Rows) -> Scores:
    """Score some items for a user by the one routine that decides order.

    Args:
        snapshot: The model.
        user_row: The user.
        rows: Int64 (m,), item rows in any order.

    Returns:
        float64 (m,), in the order of `rows`, not clipped to the rating scale (clipping would make ties of the best).
    """
    if snapshot.neighbourhood is not None:
        return _said(snapshot, snapshot.neighbourhood, user_row).terms.take(rows)
    scores = _products(snapshot.item_factors.take(rows, axis=0), snapshot.user_factors[user_row])
    scores += snapshot.item_bias.take(rows)
    scores += snapshot.user_constants[user_row]
    return scores


def exact_similarities(snapshot: ModelSnapshot, item_row: int, rows: Rows) -> Scores:
    """Cosine between one item's factors and others', float64 (m,), by a routine as fixed as `exact_scores`."""
    similarities = _products(snapshot.item_factors.take(rows, axis=0), snapshot.item_factors[item_row])
    similarities /= snapshot.item_norms[rows].astype(np.float64) * float(snapshot.item_norms[item_row])
    return similarities


def personal(snapshot: ModelSnapshot, wanted: Sequence[TopNRequest]) -> list[Ranking]:
    """Rank, for each of some users, the items that the user has not seen.

    Many at a time cost less than one by one: a matrix product reads the item factors once for all, and at a few
    thousand items they are larger than a core's second-level cache, so that reading them cools everything else down.

    Args:
        snapshot: The model.
        wanted: The lists.

    Returns:
        One ranking each, in the order of `wanted`: places offset to offset + n, the same whoever else is ranked with
        it.
    """
    if snapshot.neighbourhood is not None:
        return [_from_neighbours(snapshot, snapshot.neighbourhood, want) for want in wanted]
    if len(wanted) < _FEW:
        return [_alone(snapshot, want) for want in wanted]
    user_rows = np.array([want.user_row for want in wanted])
    approximate = snapshot.user_factors.take(user_rows, axis=0) @ snapshot.item_factors.T
    approximate += snapshot.item_bias
    for row, want in zip(approximate, wanted, strict=True):
        _take_out(snapshot, want, row)
    size = max(want.offset + want.n for want in wanted) + _MARGIN
    if size >= approximate.shape[1]:
        return [_chosen(snapshot, want, row) for want, row in zip(wanted, approximate, strict=True)]
    each = np.arange(len(wanted))[:, np.newaxis]
    candidates, cutoffs = _top(approximate, size, each)
    # In order of popularity, so that a stable sort by score leaves ties in that order.
    ranks = snapshot.popular_ranks[candidates]
    ranks.sort(axis=1)
    candidates = snapshot.popular_rows[ranks]
    scores = _exact(snapshot, user_rows, candidates)
    order = np.argsort(-scores, axis=1, kind="stable")
    candidates, scores = candidates[each, order], scores[each, order]
    # Everything outside scores at most this. If a list's last place beats it, nothing outside belongs into the list;
    # -inf means that fewer items are left than were taken.
    reach = (cutoffs + snapshot.user_reaches.take(user_rows)).tolist()
    rankings = []
    for index, want in enumerate(wanted):
        end = want.offset + want.n
        if reach[index] > -math.inf and scores[index, end - 1] > reach[index]:
            rows = candidates[index, want.offset : end]
            is_personal = _by_taste(snapshot, want.user_row, rows)
            rankings.append(Ranking(rows, scores[index, want.offset : end], is_personal))
        else:
            rankings.append(_chosen(snapshot, want, approximate[index]))
    return rankings


def personal_among(snapshot: ModelSnapshot, wanted: TopNRequest, include: Rows) -> Ranking:
    """Rank some items for a user; `include`, int64 and unique, are the only candidates."""
    rows = np.setdiff1d(include, np.concatenate([snapshot.seen_rows(wanted.user_row), wanted.exclude]))
    ranks = snapshot.popular_ranks
    if snapshot.neighbourhood is not None:
        said = _said(snapshot, snapshot.neighbourhood, wanted.user_row)
        return _told(said, _ordered(rows, said.terms.take(rows), ranks, wanted.offset, wanted.n))
    scores = exact_scores(snapshot, wanted.user_row, rows)
    ranking = _ordered(rows, scores, ranks, wanted.offset, wanted.n)
    return ranking._replace(is_personal=_by_taste(snapshot, wanted.user_row, ranking.rows))


def best(scores: Scores, ranks: Rows, n: int) -> Ranking:
    """Rank items whose exact scores are all there.

    Args:
        scores: Float64 (n_items,); -inf takes an item out.
        ranks: Int64 (n_items,), what decides between equal ones: the smaller comes first.
        n: How many to return at most.
    """
    return _best(scores, 0.0, scores.take, ranks, 0, n)


def similar(snapshot: ModelSnapshot, item_row: int, n: int) -> Ranking:
    """Rank the other items by the cosine of their factors to one item's.

    A model without factors ranks them by the cosine of who has seen them, and leaves out what shares no user.
    """
    if not snapshot.n_factors:
        return _seen_together(snapshot, item_row, n)
    approximate = snapshot.item_factors @ snapshot.item_factors[item_row]
    approximate /= snapshot.item_norms * snapshot.item_norms[item_row]
    approximate[item_row] = -np.inf
    bound = (snapshot.n_factors + 16) * _EPSILON
    ranks = snapshot.popular_ranks
    return _best(approximate, bound, lambda rows: exact_similarities(snapshot, item_row, rows), ranks, 0, n)


def popular(
    snapshot: ModelSnapshot, n: int, *, offset: int = 0, exclude: Rows = NO_ROWS, include: Rows | None = None
) -> Ranking:
    """Rank items by popularity.

    Args:
        snapshot: The model.
        n: How many to return at most.
        offset: How many of the best to leave out first.
        exclude: Int64, rows never to return.
        include: Int64, the only candidates; None for the whole catalogue.
    """
    rows = snapshot.popular_rows
    if include is not None:
        rows = rows[np.isin(rows, include)]
    if exclude.size:
        # Enough of the head that `exclude` cannot empty it: cheaper than testing the whole catalogue.
        head = rows[: offset + n + exclude.size]
        rows = head[~np.isin(head, exclude)]
    rows = rows[offset : offset + n]
    return Ranking(rows, snapshot.popularity[rows].astype(np.float64))


def _products(items: Float32, others: Float32) -> Scores:
    """Inner products over the last axis, in float64, float64 (…,).

    One product, then a sum over contiguous memory, which adds in an order that depends on the length alone; a BLAS
    product would not promise that.
    """
    products: Scores = np.add.reduce(np.multiply(items, others, dtype=np.float64), axis=-1)
    return products


def _exact(snapshot: ModelSnapshot, user_rows: NDArray[np.int64], rows: Rows) -> Scores:
    """Score items `rows` (m, c) for users `user_rows` (m,): float64 (m, c), as `exact_scores` does for one."""
    users = snapshot.user_factors.take(user_rows, axis=0)
    scores = _products(snapshot.item_factors.take(rows, axis=0), users[:, np.newaxis])
    scores += snapshot.item_bias.take(rows)
    scores += snapshot.user_constants.take(user_rows)[:, np.newaxis]
    return scores


def _alone(snapshot: ModelSnapshot, wanted: TopNRequest) -> Ranking:
    """Rank one list by itself."""
    approximate: Float32 = snapshot.item_factors @ snapshot.user_factors[wanted.user_row]
    approximate += snapshot.item_bias
    _take_out(snapshot, wanted, approximate)
    return _chosen(snapshot, wanted, approximate)


def _from_neighbours(snapshot: ModelSnapshot, neighbourhood: Neighbourhood, wanted: TopNRequest) -> Ranking:
    """Rank one list of a model with neighbours: their scores are exact at once."""
    said = _said(snapshot, neighbourhood, wanted.user_row)
    _take_out(snapshot, wanted, said.terms)
    ranks = snapshot.popular_ranks
    return _told(said, _best(said.terms, 0.0, said.terms.take, ranks, wanted.offset, wanted.n))


def _told(said: Said, ranking: Ranking) -> Ranking:
    """Say of each item of a list whether a neighbour speaks of it."""
    return ranking._replace(is_personal=said.is_spoken_of.take(ranking.rows))


def _by_taste(snapshot: ModelSnapshot, user_row: int, rows: Rows) -> NDArray[np.bool_] | None:
    """Say of each item of a list from factors whether the user's taste put it there."""
    return None if snapshot.has_taste[user_row] else np.zeros(rows.size, dtype=bool)


def _said(snapshot: ModelSnapshot, neighbourhood: Neighbourhood, user_row: int) -> Said:
    """Score all items by what neighbours say."""
    said = terms(
        neighbourhood,
        snapshot.history,
        user_row,
        level=snapshot.global_mean,
        user_bias=snapshot.user_bias,
        item_bias=snapshot.item_bias,
    )
    scores = said.terms
    scores += snapshot.item_bias
    scores += snapshot.user_constants[user_row]
    return said


def _seen_together(snapshot: ModelSnapshot, item_row: int, n: int) -> Ranking:
    """Rank items by how many users they share with one, over the root of the product of how many each has."""
    by_item = snapshot.seen_by
    users = by_item.indices[by_item.indptr[item_row] : by_item.indptr[item_row + 1]]
    # Of an item that everybody has seen some users tell enough, and all of them would take too long.
    users = users[:: max(1, -(-users.size // _MOST_USERS))]
    places, _ = entries(snapshot.history, users)
    shared = np.bincount(snapshot.history.indices[places], minlength=len(snapshot.items))
    counts = np.diff(by_item.indptr)
    shared[item_row] = 0
    rows = np.flatnonzero(shared)
    cosines = shared[rows] / np.sqrt(max(1, users.size) * counts[rows].astype(np.float64))
    return _ordered(rows, cosines, snapshot.popular_ranks, 0, n)


def _take_out(snapshot: ModelSnapshot, wanted: TopNRequest, approximate: Float32 | Scores) -> None:
    """Make the items that must not be in a list the last choice."""
    approximate[snapshot.seen_rows(wanted.user_row)] = -np.inf
    if wanted.exclude.size:
        approximate[wanted.exclude] = -np.inf


def _chosen(snapshot: ModelSnapshot, wanted: TopNRequest, approximate: Float32) -> Ranking:
    """Rank one list, given approximate scores less the user's constant, float32 (n_items,)."""
    ranking = _best(
        approximate,
        float(snapshot.user_reaches[wanted.user_row]),
        lambda rows: exact_scores(snapshot, wanted.user_row, rows),
        snapshot.popular_ranks,
        wanted.offset,
        wanted.n,
    )
    return ranking._replace(is_personal=_by_taste(snapshot, wanted.user_row, ranking.rows))


def _top(approximate: Float32, size: int, each: NDArray[np.int64]) -> tuple[Rows, Float32]:
    """Choose the `size` largest of each row, in no order, without sorting through all of it.

    The row is cut into interleaved blocks. The `size` blocks with the largest maxima hold the `size` largest numbers:
    each has one that is at least the least of those maxima, and no other block has a larger one.

    Args:
        approximate: Float32 (m, n), n larger than size.
        size: How many.
        each: Int64 (m, 1), 0 to m - 1.

    Returns:
        Their columns, int64 (m, size), and what nothing else exceeds, float32 (m,).
    """
    n = approximate.shape[1]
    # As many blocks as numbers in the chosen ones, which is the least work.
    width = math.isqrt(n // size)
    count = n // width
    maxima = approximate[:, : width * count].reshape(-1, width, count).max(axis=1)
    chosen = maxima.argpartition(count - size, axis=1)[:, np.newaxis, -size:]
    pool = (chosen + np.arange(0, width * count, count)[:, np.newaxis]).reshape(len(each), -1)
    rest = np.arange(width * count, n)
    pool = np.concatenate([pool, np.broadcast_to(rest, (len(each), rest.size))], axis=1)
    values = approximate[each, pool]
    picked = values.argpartition(values.shape[1] - size, axis=1)[:, -size:]
    return pool[each, picked], values[each, picked[:, :1]][:, 0]


def _best(
    approximate: Float32 | Scores, bound: float, exact: Callable[[Rows], Scores], ranks: Rows, offset: int, n: int
) -> Ranking:
    """Return places offset to offset + n by exact score.

    Args:
        approximate: Float32 (n_items,); -inf takes an item out.
        bound: No exact score is larger than its approximate one plus this.
        exact: The scores that decide.
        ranks: Int64 (n_items,), what decides between equal ones: the smaller comes first.
        offset: How many of the best to leave out first.
        n: How many to return at most.
    """
    wanted = offset + n
    size = wanted + _MARGIN
    while size < approximate.size:
        rows = approximate.argpartition(approximate.size - size)[-size:]
        cutoff = float(approximate[rows[0]])
        if cutoff == -math.inf:
            # Fewer items are left than we took: these are all of them.
            rows = rows[approximate[rows] > -np.inf]
            return _ordered(rows, exact(rows), ranks, offset, n)
        ranking = _ordered(rows, exact(rows), ranks, 0, wanted)
        if ranking.scores[-1] > cutoff + bound:
            return Ranking(ranking.rows[offset:], ranking.scores[offset:])
        size *= 4
    rows = np.flatnonzero(approximate > -np.inf)
    return _ordered(rows, exact(rows), ranks, offset, n)


def _ordered(rows: Rows, scores: Scores, ranks: Rows, offset: int, n: int) -> Ranking:
    order = np.lexsort((ranks[rows], -scores))[offset : offset + n]
    return Ranking(rows[order], scores[order])
