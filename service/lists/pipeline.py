"""From a request to its list: one deterministic function, for every list that is served and for its replay.

The stages: the user, with session and features of the request; the scores of all items; the candidates; boosts; the
best by exact score, and their order by the ranker if the model has one (`retrieval`); the pages before; diversity;
exploration; places of pins.

Invariant: a list depends on the arguments alone. `plain_list` finishes a list that `personal_lists` has ranked, perhaps
in a batch, and is the same to the last bit as `make_list` of its request.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.api import wire
from service.errors import FilterRefused
from service.lists import item_scores, pages, retrieval, shortfall
from service.lists.boosts import BoostFactors
from service.lists.candidates import Candidates
from service.lists.diversity import diversify, pool_size
from service.lists.explanations import Explanation, Shares, explain, shares_of_seeds, shares_of_user
from service.lists.exploration import Exploration, explore
from service.lists.filters.columns import Columns
from service.lists.filters.masks import FilterMask, FilterMasks
from service.lists.item_scores import ItemScores, ListUser
from service.lists.item_similarity import similarities_among
from service.lists.list_request import ListRequest
from service.lists.pages import Page
from service.lists.pins import PinnedRow, arrange
from service.lists.reduced import REDUCED, reduced_scores
from service.lists.request_user import request_user
from service.models.neighbourhood import Scores
from service.models.ranking.reranking import whole_blocks
from service.models.ranking.scoring import NO_ROWS, Ranking, Rows
from service.models.snapshot import ModelSnapshot

_FIRST_PAGE: Final = Page()
# Sources of lists whose candidates do not depend on the user.
_FOR_ALL: Final[tuple[wire.Source, ...]] = ("popular", "similar")
# However often an item was shown.
_LEAST_SHOWN_FACTOR: Final = 0.01


class ItemCatalogue(Columns, Protocol):
    """The items' attributes, and which items may be shown."""

    def unavailable_rows(self, now_s: float) -> NDArray[np.int64]:
        """Return the items that are hidden or not available at a time: int64, ascending."""
        ...


class ListModel(NamedTuple):
    """What lists are made from.

    Attributes:
        snapshot: The model.
        catalogue: The attributes of its items.
        masks: The masks of filters.
        window_counts: Float64 (n_items,), the interactions in the window of a request that has one; else None.
        retrieved: Int64, the candidates of a user's list, which another service has found; None for all items. Lists
            for no particular user and those of similar items do not depend on it.
    """

    snapshot: ModelSnapshot
    catalogue: ItemCatalogue
    masks: FilterMasks
    window_counts: Scores | None = None
    retrieved: Rows | None = None


class MadeList(NamedTuple):
    """A list, best first but for pinned items.

    Attributes:
        rows: The items.
        scores: Float64 (m,), one for each.
        sources: Where each comes from.
        page: The page that the list is.
        has_more: Whether another page would have an item.
        shortfall: What ran out if there are less items than requested; else None.
        propensities: The probability of each item in its place, float64 (m,); None if all are 1.
        explanations: Of each item; None if not asked for, or if the model cannot tell.
    """

    rows: list[int]
    scores: NDArray[np.float64]
    sources: Sequence[wire.Source]
    page: Page
    has_more: bool
    shortfall: wire.ShortfallCode | None
    propensities: NDArray[np.float64] | None = None
    explanations: list[Explanation] | None = None


def make_list(
    model: ListModel, request: ListRequest, user: ListUser | None, now_s: float, recommendation_id: str = ""
) -> MadeList:
    """Make any list.

    Args:
        model: What to make it from.
        request: What is asked for.
        user: The user; None for an unknown one and for a list for no particular user.
        now_s: The time of the request, at which items must be available.
        recommendation_id: The id of the list, which decides what a list samples that explores.

    Raises:
        Invalid: A filter or the page token is wrong.
    """
    snapshot = model.snapshot
    page = page_of(request)
    if request.session or request.user_features:
        user = request_user(snapshot, model.catalogue, user, request, now_s)
    seeds = rows_of(snapshot, _seed_ids(request))
    scores, source = _scores(model, request, seeds, user)
    pinned = pinned_rows(model, request, page, now_s)
    candidates = Candidates(
        len(snapshot.items),
        include=None if request.include is None else np.unique(rows_of(snapshot, request.include)),
        filter=None if request.filter is None else mask_of(model, request.filter, "filter"),
        exclude=rows_of(snapshot, request.exclude),
        hidden=model.catalogue.unavailable_rows(now_s),
        seen=NO_ROWS if user is None else user.seen_rows(snapshot),
        placed=np.concatenate([seeds, np.array([pin.row for pin in pinned], dtype=np.int64)]),
        retrieved=None if model.retrieved is None or source in _FOR_ALL else np.unique(model.retrieved),
    )
    boosts = [
        (mask_of(model, boost.filter, f"boosts[{index}].filter"), boost.factor)
        for index, boost in enumerate(request.boosts)
    ]
    of_rows = shown_factors(request, user)
    # The places that the first page skipped are skipped again, after the items of the pages before are left out.
    end = page.offset + request.n + 1
    ranking = retrieval.best(
        scores,
        candidates,
        BoostFactors(len(snapshot.items), boosts, of_rows) if boosts or of_rows else None,
        snapshot.popular_ranks,
        _pool_size(request, page, end) + page.n_shown,
    )
    ranking = _not_shown(snapshot, ranking, page)
    if request.diversity:
        chosen = diversify(ranking.scores, similarities_among(snapshot, ranking.rows), end, request.diversity)
        ranking = Ranking(ranking.rows[chosen], ranking.scores[chosen])
    propensities = None
    if request.exploration is not None:
        ranking, propensities = _explored(ranking, page, request, request.exploration, recommendation_id)
    places = arrange(ranking.rows.tolist(), pinned, page.n_shown, end)[page.offset :]
    shown = places[: request.n]
    rows = [place.row for place in shown]
    exact = np.array([np.nan if place.ranked_index is None else ranking.scores[place.ranked_index] for place in shown])
    is_pinned = np.isnan(exact)
    if is_pinned.any():
        exact[is_pinned] = scores.listed(np.array(rows)[is_pinned])
        # A pinned item that shares nothing with the item of the list.
        exact[np.isneginf(exact)] = 0.0
    short = None
    if len(shown) < request.n:
        n_ranked = request.n - int(np.count_nonzero(is_pinned))
        needs_neighbour = seeds.size > 0 and not snapshot.n_factors
        short = shortfall.code(candidates, n_ranked, page.place, needs_neighbour=needs_neighbour)
    sources = _sources(source, scores.is_personal(np.array(rows, dtype=np.int64)), is_pinned.tolist())
    shown_propensities = None
    if propensities is not None:
        of_place = [1.0 if place.ranked_index is None else propensities[place.ranked_index] for place in shown]
        shown_propensities = np.array(of_place)
    explained = _explained(snapshot, request, seeds.tolist(), user, scores, rows, exact) if request.explain else None
    return MadeList(rows, exact, sources, page, len(places) > request.n, short, shown_propensities, explained)


def plain_list(
    snapshot: ModelSnapshot,
    request: ListRequest,
    user: ListUser | None,
    hidden: NDArray[np.int64],
    ranking: Ranking,
) -> MadeList:
    """Finish a list whose request `is_plain`.

    Args:
        snapshot: The model.
        request: What is asked for, at any level.
        user: As for `make_list`.
        hidden: The items that are not available.
        ranking: Places offset to offset + n + 1, one more than asked for.
    """
    n = request.n
    is_popular = user is None or not user.is_known or request.level in REDUCED
    source: wire.Source = "popular" if is_popular else "personal"
    is_personal = ranking.is_personal
    rows = ranking.rows.tolist()
    has_more = len(rows) > n
    if has_more:
        del rows[n:]
    short = None
    if len(rows) < n:
        seen = NO_ROWS if user is None else user.seen_rows(snapshot)
        exclude = rows_of(snapshot, request.exclude)
        short = shortfall.code(
            Candidates(len(snapshot.items), exclude=exclude, hidden=hidden, seen=seen), n, request.offset
        )
    sources = [source] * len(rows) if is_personal is None else _sources(source, is_personal[:n], None)
    page = Page(request.offset) if request.offset else _FIRST_PAGE
    return MadeList(rows, ranking.scores[:n], sources, page, has_more, short)


def n_retrieved(snapshot: ModelSnapshot, request: ListRequest) -> int:
    """Return how many of a user's best candidates decide a list: what to ask a service of candidates for.

    Raises:
        Invalid: The page token is wrong.
    """
    page = page_of(request)
    n = _pool_size(request, page, page.offset + request.n + 1) + page.n_shown
    return n if snapshot.ranker is None else whole_blocks(n, snapshot.ranker.n_candidates)


def page_of(request: ListRequest) -> Page:
    """Return where the page of a request begins.

    Raises:
        Invalid: The page token is wrong.
    """
    if request.page_token is None:
        return Page(request.offset)
    return pages.read(request.page_token, request.kind, request.offset)


def rows_of(snapshot: ModelSnapshot, item_ids: Sequence[str]) -> Rows:
    """Return the rows of items, int64; unknown ones are left out."""
    if not item_ids:
        return NO_ROWS
    row_of = snapshot.items.row_of
    return np.array([row_of[i] for i in item_ids if i in row_of], dtype=np.int64)


def _seed_ids(request: ListRequest) -> Sequence[str]:
    return request.seeds if request.similar_to is None else (request.similar_to,)


def _scores(
    model: ListModel, request: ListRequest, seeds: Rows, user: ListUser | None
) -> tuple[ItemScores, wire.Source]:
    snapshot = model.snapshot
    if model.window_counts is not None:
        return item_scores.of_known(model.window_counts), "popular"
    if seeds.size:
        return item_scores.of_similarity(snapshot, np.unique(seeds).tolist()), "similar"
    if user is None or not user.is_known:
        return item_scores.of_popularity(snapshot), "popular"
    if request.level in REDUCED:
        return item_scores.of_known(reduced_scores(snapshot, request.level, user.row)), "popular"
    return item_scores.of_user(snapshot, user), user.source


def shown_factors(request: ListRequest, user: ListUser | None) -> dict[int, float]:
    """Return the factor of each row that was shown to the user in vain."""
    factor = request.impression_factor
    if user is None or factor is None or factor >= 1:
        return {}
    return {row: max(_LEAST_SHOWN_FACTOR, factor**times) for row, times in user.shown.items()}


def _explained(
    snapshot: ModelSnapshot,
    request: ListRequest,
    seeds: list[int],
    user: ListUser | None,
    scores: ItemScores,
    rows: list[int],
    listed: Scores,
) -> list[Explanation] | None:
    """Explain the scores of a list's items as listed, boosts included."""
    items = np.array(rows, dtype=np.int64)
    if seeds:
        shares: Shares | None = shares_of_seeds(snapshot, sorted(set(seeds)), items)
    elif user is None or not user.is_known or request.level in REDUCED:
        shares = None
    else:
        shares = shares_of_user(snapshot, user, items)
    if shares is None:
        return None
    before = scores.listed(items)
    boosts = np.divide(listed, before, out=np.ones(items.size), where=(before != 0) & np.isfinite(before))
    return explain(shares, listed, boosts, request.explain)


def pinned_rows(model: ListModel, request: ListRequest, page: Page, now_s: float) -> list[PinnedRow]:
    """Return the pins that can be shown: of known and available items that are not excluded nor on a page before."""
    if not request.pins:
        return []
    row_of = model.snapshot.items.row_of
    barred = {*request.exclude, *_seed_ids(request)}
    known = [pin for pin in request.pins if pin.item_id in row_of and pin.item_id not in barred]
    is_shown = pages.is_shown(page, [pin.item_id for pin in known])
    hidden = set(model.catalogue.unavailable_rows(now_s).tolist())
    return [
        PinnedRow(pin.position, row_of[pin.item_id])
        for pin, shown in zip(known, is_shown, strict=True)
        if not shown and row_of[pin.item_id] not in hidden
    ]


def mask_of(model: ListModel, text: str, field: str) -> FilterMask:
    """Return the items that a filter in a field of a request matches.

    Raises:
        Invalid: The filter is wrong.
    """
    try:
        return model.masks.of(text, model.catalogue)
    except FilterRefused as refused:
        raise wire.invalid_text(field, refused.reason, refused.column) from None


def _pool_size(request: ListRequest, page: Page, end: int) -> int:
    """Return how many of the best items the places up to `end` are chosen from."""
    size = pool_size(end) if request.diversity else end
    if request.exploration is not None:
        size = max(size, page.offset + request.exploration.n_candidates(request.n) + 1)
    return size


def _explored(
    ranking: Ranking, page: Page, request: ListRequest, how: Exploration, recommendation_id: str
) -> tuple[Ranking, NDArray[np.float64]]:
    """Sample the places of a page; the items that are left follow in their order."""
    skipped = min(page.offset, ranking.rows.size)
    drawn = explore(ranking.scores[skipped:], request.n, recommendation_id, how)
    chosen = skipped + drawn.chosen
    rest = np.delete(np.arange(skipped, ranking.rows.size), drawn.chosen)
    order = np.concatenate([np.arange(skipped), chosen, rest])
    propensities = np.ones(order.size)
    propensities[skipped : skipped + chosen.size] = drawn.propensities
    return Ranking(ranking.rows[order], ranking.scores[order]), propensities


def _not_shown(snapshot: ModelSnapshot, ranking: Ranking, page: Page) -> Ranking:
    """Leave out the items of the pages before."""
    if not page.shown:
        return ranking
    id_of = snapshot.items.id_of
    keep = ~np.array(pages.is_shown(page, [id_of[row] for row in ranking.rows.tolist()]), dtype=bool)
    return Ranking(ranking.rows[keep], ranking.scores[keep])


def _sources(
    source: wire.Source, is_personal: NDArray[np.bool_] | None, is_pinned: list[bool] | None
) -> list[wire.Source]:
    """Return the source of each item; in a personal list an item that the user's history has no say in is popular."""
    if is_personal is None:
        return [source if not pinned else "pinned" for pinned in is_pinned or ()]
    pins = is_pinned or [False] * is_personal.size
    return [
        "pinned" if pinned else source if personal else "popular"
        for personal, pinned in zip(is_personal.tolist(), pins, strict=True)
    ]
