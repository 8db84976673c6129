"""Lists agree with the reference, page by page, for random requests; the fast path agrees with the pipeline."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from service.errors import Invalid
from service.lists import pipeline
from service.lists.filters.masks import FilterMasks
from service.lists.item_scores import ListUser
from service.lists.list_request import Boost, ListRequest, Pin
from service.lists.pipeline import ListModel, MadeList, make_list, plain_list
from service.lists.sessions import SessionItem, with_session
from service.models.ranking import scoring, similarity
from service.models.ranking.personal_lists import personal
from service.models.snapshot import ModelSnapshot
from tests.reference.lists import ListedItem, Shelf, whole_list
from tests.support.models.list_world import N_USERS, SIZES, ListCatalogue, World, world


def shelf_of(this: World, request: ListRequest, user: ListUser | None) -> Shelf:
    snapshot = this.model.snapshot
    ids, ranks = snapshot.items.id_of, snapshot.popular_ranks.tolist()
    user = with_session(snapshot, user, request.session, 7.0) if request.session else user
    given = request.seeds if request.similar_to is None else (request.similar_to,)
    seeds = {snapshot.items.row_of[item_id] for item_id in given if item_id in snapshot.items.row_of}
    seen = set() if user is None else set(user.seen_rows(snapshot).tolist())
    return Shelf(
        ids,
        scores_of(snapshot, sorted(seeds), user),
        ranks,
        this.catalogue.items,
        seen,
        set(this.catalogue.hidden.tolist()),
        seeds,
        *ranker_scores_of(snapshot, user, is_for_all=bool(seeds) or user is None),
    )


def ranker_scores_of(
    snapshot: ModelSnapshot, user: ListUser | None, *, is_for_all: bool
) -> tuple[list[float] | None, int]:
    if snapshot.ranker is None or is_for_all or user is None:
        return None, 0
    representation = user.representation or snapshot.trained_user(user.row or 0)
    ranker = snapshot.ranker
    scores = [float(ranker.scores(representation.factors, item[np.newaxis])[0]) for item in snapshot.item_factors]
    return scores, ranker.n_candidates


def scores_of(snapshot: ModelSnapshot, seeds: list[int], user: ListUser | None) -> list[float | None]:
    rows = np.arange(len(snapshot.items))
    if seeds and snapshot.n_factors:
        cosines = np.zeros(rows.size)
        for seed in seeds:
            cosines += similarity.exact_similarities(snapshot, seed, rows)
        return list((cosines / len(seeds)).tolist())
    if seeds:
        sums: dict[int, float] = {}
        for seed in seeds:
            for row, score in zip(*similarity.shared_user_cosines(snapshot, seed), strict=True):
                sums[row] = sums.get(row, 0.0) + score
        return [sums[row] / len(seeds) if row in sums else None for row in rows.tolist()]
    if user is None:
        return list(snapshot.popularity.astype(float).tolist())
    return list(scoring.exact_scores(snapshot, user.row or 0, rows, user.representation).tolist())


def listed(this: World, made: MadeList) -> list[ListedItem]:
    id_of = this.model.snapshot.items.id_of
    return [
        ListedItem(id_of[row], score, is_pinned=source == "pinned")
        for row, score, source in zip(made.rows, made.scores.tolist(), made.sources, strict=True)
    ]


FILTERS = ['genres == "Comedy"', "year >= 1990", "rare", 'not (genres in ["Horror"])', 'rare and genres == "Drama"']
item_ids = st.integers(0, 70).map("i{}".format)
session_items = st.builds(
    SessionItem,
    item_ids,
    st.sampled_from(["view", "click", "purchase", "dismiss", "rating"]),
    st.sampled_from([None, 2.0]),
)
drawn_boosts = st.builds(Boost, st.sampled_from(FILTERS), st.sampled_from([0.5, 2.0, 3.0]))
requests = st.builds(
    ListRequest,
    n=st.integers(1, 70),
    fields=st.just(()),
    deadline_ms=st.none(),
    diversity=st.just(0.0),
    exploration=st.none(),
    level=st.none(),
    page_token=st.none(),
    explain=st.just(0),
    user_id=st.sampled_from([None, "u0", "u1", "u2", "nobody"]),
    offset=st.sampled_from([0, 0, 1, 5, 60]),
    exclude=st.lists(item_ids, max_size=8).map(tuple),
    include=st.one_of(st.none(), st.none(), st.lists(item_ids, max_size=40).map(tuple)),
    similar_to=st.sampled_from([None, None, None, "i3"]),
    seeds=st.sampled_from([(), (), (), ("i2", "i5", "unknown"), ("i1", "i3", "i6", "i3")]),
    session=st.one_of(st.just(()), st.just(()), st.lists(session_items, max_size=4).map(tuple)),
    filter=st.sampled_from([None, *FILTERS]),
    boosts=st.lists(st.builds(Boost, st.sampled_from(FILTERS), st.sampled_from([0.5, 2.0, 3.0])), max_size=2).map(
        tuple
    ),
    pins=st.lists(
        st.builds(Pin, item_ids, st.integers(0, 12)), max_size=3, unique_by=(lambda p: p.item_id, lambda p: p.position)
    ).map(tuple),
)
KINDS = ["factors", "neighbours", "ranked"]
worlds = st.builds(world, st.sampled_from(SIZES), st.sampled_from(KINDS), st.booleans())


@settings(max_examples=250, deadline=None)
@given(worlds, requests, st.integers(1, 30))
def test_every_list_is_that_of_the_reference(this: World, request: ListRequest, n_next: int) -> None:
    """Items, scores, pins, the end, the shortfall; then pages of another length until the end, without a repeat."""
    user = None if request.user_id in (None, "nobody") else ListUser(int(str(request.user_id)[1:]))
    expected = whole_list(shelf_of(this, request, user), request)[request.offset :]
    made = make_list(this.model, request, user, 7.0)
    assert listed(this, made) == expected[: request.n]
    assert made.has_more == (len(expected) > request.n)
    assert (made.shortfall is None) == (len(made.rows) == request.n)
    pages = listed(this, made)
    for _ in range(3):
        ids = [item.item_id for item in listed(this, made)]
        token = made.page.token_of_next(request.kind, ids) if made.has_more else None
        if token is None:
            assert len(pages) == len(expected)
            break
        made = make_list(this.model, request._replace(page_token=token, n=n_next), user, 7.0)
        assert made.page.place == request.offset + len(pages)
        pages += listed(this, made)
        assert pages == expected[: len(pages)]
        assert len(pages) == len(expected) or len(made.rows) == n_next


@settings(max_examples=60, deadline=None)
@given(worlds, requests)
def test_the_fast_path_makes_the_same_list(this: World, drawn: ListRequest) -> None:
    """A plain request ranked by `scoring`, as in the batcher, and by the pipeline."""
    request = ListRequest(drawn.n, drawn.user_id, drawn.offset, drawn.exclude)
    assert request.is_plain
    user = None if request.user_id in (None, "nobody") else ListUser(int(str(request.user_id)[1:]))
    snapshot, hidden = this.model.snapshot, this.catalogue.hidden
    exclude = np.concatenate([pipeline.rows_of(snapshot, request.exclude), hidden])
    if user is None:
        ranking = scoring.popular(snapshot, request.n + 1, offset=request.offset, exclude=exclude)
    else:
        top_n = scoring.TopNRequest(user.row or 0, request.n + 1, request.offset, exclude)
        ranking = personal(snapshot, [top_n] * 5)[3]
    fast = plain_list(snapshot, request, user, hidden, ranking)
    slow = make_list(this.model, request, user, 7.0)
    assert (fast.rows, fast.scores.tolist(), list(fast.sources)) == (
        slow.rows,
        slow.scores.tolist(),
        list(slow.sources),
    )
    assert (fast.page, fast.has_more, fast.shortfall) == (slow.page, slow.has_more, slow.shortfall)


def test_pages_repeat_nothing_when_the_model_changes_between_them() -> None:
    """Another replica with other items, scores and rows continues the list, in its own order."""
    first, second = world(64, "factors", hides=False), world(60, "factors", hides=False)
    request = ListRequest(20, "u1")
    made = make_list(first.model, request, ListUser(1), 7.0)
    ids = [first.model.snapshot.items.id_of[row] for row in made.rows]
    token = made.page.token_of_next(request.kind, ids)
    later = make_list(second.model, request._replace(page_token=token, n=500), ListUser(2), 7.0)
    later_ids = [second.model.snapshot.items.id_of[row] for row in later.rows]
    whole = make_list(second.model, request._replace(n=500), ListUser(2), 7.0)
    assert later_ids == [i for row in whole.rows if (i := second.model.snapshot.items.id_of[row]) not in ids]
    assert 0 < len(later_ids) < len(whole.rows)


@pytest.mark.parametrize("change", ["", "Q", "==", "é", "kind", "offset", "one character"])
def test_a_damaged_or_foreign_page_token_is_refused(change: str) -> None:
    """The field is named; no list is made."""
    this = world(60, "factors", hides=False)
    request = ListRequest(10, "u1", offset=3)
    made = make_list(this.model, request, ListUser(1), 7.0)
    token = made.page.token_of_next(request.kind, [this.model.snapshot.items.id_of[row] for row in made.rows])
    assert token is not None
    field = "page_token"
    if change == "kind":
        request = request._replace(user_id="u2")
    elif change == "offset":
        field, request = "offset", request._replace(offset=4)
    elif change == "one character":
        token = token[:12] + ("A" if token[12] != "A" else "B") + token[13:]
    else:
        token = change + (token[1:] if change else "")
    with pytest.raises(Invalid) as refused:
        make_list(this.model, request._replace(page_token=token), ListUser(1), 7.0)
    assert refused.value.errors is not None
    assert refused.value.errors[0]["field"] == field


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"n": 100}, "catalogue"),
        ({"user_id": "u1", "n": 60}, "seen"),
        ({"filter": "rare"}, "filter"),
        ({"include": ("i1", "i2", "zzz")}, "include"),
        ({"exclude": tuple(f"i{row}" for row in range(55))}, "exclude"),
        ({"offset": 58}, "pages"),
        # Either would do, and the filter bars more.
        ({"filter": "rare", "exclude": tuple(f"i{row}" for row in range(52))}, "filter"),
        # Without exclusions the list would be full; without the filter it would not.
        ({"filter": "year >= 1981", "exclude": tuple(f"i{row}" for row in range(55)), "n": 20}, "exclude"),
    ],
)
def test_a_shortfall_names_what_ran_out(changes: dict[str, Any], code: str) -> None:
    """One cause for each list that is too short."""
    this = world(60, "factors", hides=False)
    request = ListRequest(10)._replace(**changes)
    user = None if request.user_id is None else ListUser(int(request.user_id[1:]))
    made = make_list(this.model, request, user, 7.0)
    assert made.shortfall == code


def test_hidden_items_and_items_without_a_common_user_run_out() -> None:
    """The catalogue's own causes."""
    this = world(60, "neighbours", hides=False)
    hiding = ListCatalogue(this.catalogue.items, list(range(55)))
    hidden = make_list(this.model._replace(catalogue=hiding), ListRequest(10), None, 7.0)
    assert (hidden.shortfall, len(hidden.rows)) == ("hidden", 5)
    alone = replace(this.model.snapshot, history=csr_array(np.zeros((N_USERS, 60), np.float32)))
    similar = make_list(this.model._replace(snapshot=alone), ListRequest(10, similar_to="i3"), None, 7.0)
    assert (similar.shortfall, similar.rows) == ("neighbours", [])


@settings(max_examples=60, deadline=None)
@given(requests)
def test_a_request_survives_its_record(request: ListRequest) -> None:
    """A served event holds the request as JSON, without the user."""
    fields = request.as_fields
    assert "user_id" not in fields
    assert ListRequest.from_fields(fields, request.user_id) == request


def test_bad_filters_name_their_field_and_column(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """The filter of the list, and those of boosts."""
    snapshot = make_snapshot(n_items=60)
    model = ListModel(snapshot, ListCatalogue([{"year": 1990}] * 60, []), FilterMasks())
    boosts = (Boost("year > 1", 2.0), Boost("yeer > 1", 2.0))
    for request, field, column in (
        (ListRequest(5, filter="year >"), "filter", 7),
        (ListRequest(5, boosts=boosts), "boosts[1].filter", 1),
    ):
        with pytest.raises(Invalid) as refused:
            make_list(model, request, None, 7.0)
        assert refused.value.errors is not None
        assert (refused.value.errors[0]["field"], refused.value.errors[0]["column"]) == (field, column)
