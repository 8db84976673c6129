"""Two services make the list of one, if they have the same model, to the last bit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api import candidate_wire, wire
from service.candidates.query import CandidateQuery, find, popular_rows, query_of
from service.candidates.query_wire import body_of, query_of_body
from service.errors import Invalid
from service.lists.item_scores import ListUser
from service.lists.list_request import Boost, ListRequest, Pin
from service.lists.pipeline import ListModel, MadeList, make_list
from service.lists.sessions import SessionItem
from tests.support.models.list_world import SIZES, World, world

NOW_S = 7.0
FILTERS = ['genres == "Comedy"', "year >= 1990", "rare"]
ids = st.integers(0, 70).map("i{}".format)
requests = st.builds(
    ListRequest,
    n=st.integers(1, 70),
    user_id=st.sampled_from(["u0", "u1", "u2"]),
    offset=st.sampled_from([0, 0, 1, 60]),
    exclude=st.lists(ids, max_size=8).map(tuple),
    fields=st.just(()),
    deadline_ms=st.none(),
    include=st.none(),
    similar_to=st.none(),
    seeds=st.just(()),
    session=st.one_of(
        st.just(()), st.lists(st.builds(SessionItem, ids, st.just("view"), st.none()), max_size=3).map(tuple)
    ),
    window=st.none(),
    page_token=st.none(),
    filter=st.sampled_from([None, *FILTERS]),
    boosts=st.lists(st.builds(Boost, st.sampled_from(FILTERS), st.sampled_from([0.5, 3.0])), max_size=2).map(tuple),
    pins=st.lists(
        st.builds(Pin, ids, st.integers(0, 12)), max_size=2, unique_by=(lambda p: p.item_id, lambda p: p.position)
    ).map(tuple),
    impression_factor=st.sampled_from([None, 0.5]),
    explain=st.just(0),
    diversity=st.sampled_from([0.0, 0.5]),
    exploration=st.none(),
    candidates=st.none(),
    level=st.sampled_from([None, "trained"]),
)
worlds = st.builds(world, st.sampled_from(SIZES), st.sampled_from(["factors", "ranked"]), st.booleans())


def by_two_services(model: ListModel, request: ListRequest, user: ListUser) -> MadeList:
    query = query_of(model, request, user, NOW_S)
    assert query is not None
    body = wire.decode(candidate_wire.CandidatesRequest, body_of(query, None))
    return make_list(model._replace(retrieved=find(model, query_of_body(body)).rows), request, user, NOW_S)


def compared(made: MadeList) -> list[Any]:
    return [made.rows, made.scores.tolist(), list(made.sources), made.has_more, made.page]


@settings(max_examples=150, deadline=None)
@given(worlds, requests, st.dictionaries(st.integers(0, 6), st.integers(1, 3), max_size=3))
def test_the_list_of_two_services_is_that_of_one(this: World, request: ListRequest, shown: dict[int, int]) -> None:
    """With filters, boosts, pins, sessions, diversity and impressions; the page after it, too."""
    user = ListUser(int(str(request.user_id)[1:]), shown=shown)
    made = make_list(this.model, request, user, NOW_S)
    assert compared(by_two_services(this.model, request, user)) == compared(made)
    id_of = this.model.snapshot.items.id_of
    token = made.page.token_of_next(request.kind, [id_of[row] for row in made.rows]) if made.has_more else None
    if token is not None:
        following = request._replace(page_token=token)
        expected = make_list(this.model, following, user, NOW_S)
        assert compared(by_two_services(this.model, following, user)) == compared(expected)


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9),
    st.floats(-1e12, 1e12),
    st.integers(0, 4_000_000_000_000),
)
def test_a_query_survives_its_body_to_the_last_bit(vector: list[float], constant: float, at_ms: int) -> None:
    """The vector as float32, the time in milliseconds."""
    query = CandidateQuery(
        np.array(vector, np.float32), constant, 7, at_ms / 1000, ("a", "ü"), "x == 1", (), {"b": 0.5}
    )
    again = query_of_body(wire.decode(candidate_wire.CandidatesRequest, body_of(query, "space")))
    assert again.vector.tobytes() == query.vector.tobytes()
    assert (again.constant, again.n, again.at_s) == (query.constant, 7, query.at_s)
    assert (tuple(again.exclude), again.filter, dict(again.factors)) == (query.exclude, "x == 1", {"b": 0.5})


@pytest.mark.parametrize(
    "changes",
    [
        {"user_id": None},
        {"include": ("i1",)},
        {"similar_to": "i1"},
        {"seeds": ("i1",)},
        {"window": "7d"},
        {"level": "cluster"},
        {"level": "popular"},
    ],
)
def test_lists_that_need_no_vector_ask_for_no_candidates(changes: dict[str, Any]) -> None:
    """Nor do lists of a model without factors."""
    request = ListRequest(10, "u1")
    user = None if "user_id" in changes else ListUser(1)
    model = world(60, "factors", hides=False).model
    assert query_of(model, request._replace(**changes), user, NOW_S) is None
    assert query_of(world(60, "neighbours", hides=False).model, request, ListUser(1), NOW_S) is None
    assert query_of(model, request, ListUser(1), NOW_S) is not None


def test_popular_candidates_are_the_most_popular_ones_that_the_list_may_hold() -> None:
    """Without seen, excluded, hidden and other items than the filter's; the list is by score all the same."""
    this = world(1500, "factors", hides=True)
    snapshot, user = this.model.snapshot, ListUser(1)
    request = ListRequest(10, "u1", exclude=("i3", "i4"), filter="year >= 1990")
    query = query_of(this.model, request, user, NOW_S)
    assert query is not None
    rows = popular_rows(this.model, query)
    matching = {row for row, item in enumerate(this.catalogue.items) if int(str(item["year"])) >= 1990}
    barred = {*this.catalogue.hidden.tolist(), *snapshot.seen_rows(1).tolist()}
    barred |= {snapshot.items.row_of[item_id] for item_id in request.exclude}
    expected = [row for row in snapshot.popular_rows.tolist() if row in matching and row not in barred]
    assert rows.tolist() == expected[:500]
    made = make_list(this.model._replace(retrieved=rows), request, user, NOW_S)
    assert len(made.rows) == 10
    assert set(made.rows) <= set(rows.tolist())
    assert made.scores.tolist() == sorted(made.scores.tolist(), reverse=True)


def test_a_wrong_filter_is_refused_before_another_service_is_asked() -> None:
    """The caller learns the field, as in one process."""
    model = world(60, "factors", hides=False).model
    for changes in ({"filter": "year >"}, {"boosts": (Boost("year >", 2.0),)}):
        with pytest.raises(Invalid):
            query_of(model, ListRequest(10, "u1")._replace(**changes), ListUser(1), NOW_S)
