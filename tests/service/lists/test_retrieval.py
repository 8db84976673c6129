"""The stages of a list with a ranker: which items it orders, and candidates that another service has found."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lists import pipeline
from service.lists.candidates import Candidates
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.pipeline import make_list
from service.lists.retrieval import retrieved_rows
from service.models.networks.networks import Networks
from service.models.ranking import scoring
from service.models.ranking.personal_lists import personal, personal_among
from service.models.ranking.scoring import TopNRequest
from tests.support.models.list_world import SIZES, world
from tests.support.networks.tiny_networks import DistanceRanker, MeanTower

USER = ListUser(1)
this_kind = st.sampled_from(["factors", "ranked"])


def test_the_ranker_orders_the_best_candidates_and_no_others() -> None:
    """The items of the first block are those of the first stage, in another order."""
    plain, ranked = world(1500, "factors", hides=False), world(1500, "ranked", hides=False)
    request = ListRequest(16, "u1")
    first = make_list(plain.model, request, USER, 7.0)
    second = make_list(ranked.model, request, USER, 7.0)
    assert set(second.rows) == set(first.rows)
    assert second.rows != first.rows
    assert sorted(second.scores, reverse=True) == second.scores.tolist()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SIZES), st.integers(1, 60), st.integers(0, 40), st.integers(1, 60))
def test_a_list_is_the_beginning_of_a_longer_one(n_items: int, n: int, offset: int, more: int) -> None:
    """With a ranker too, whatever blocks the ends fall into."""
    snapshot = world(n_items, "ranked", hides=False).model.snapshot
    short, long = personal(snapshot, [TopNRequest(0, n, offset), TopNRequest(0, n + more, offset)])
    assert short.rows.tolist() == long.rows[:n].tolist()
    assert short.scores.tolist() == long.scores[:n].tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SIZES),
    this_kind,
    st.integers(1, 40),
    st.sampled_from([None, "year >= 1990", "rare"]),
    st.sampled_from([0.0, 0.4]),
    st.sets(st.integers(0, 70), max_size=5),
)
def test_candidates_of_another_service_make_the_same_list(
    n_items: int, kind: str, n: int, filter_text: str | None, diversity: float, excluded: set[int]
) -> None:
    """If they hold the best ones, as many as `n_retrieved` says, in any order and with barred ones among them."""
    this = world(n_items, kind, True)
    snapshot = this.model.snapshot
    exclude = tuple(f"i{row}" for row in sorted(excluded))
    request = ListRequest(n, "u1", exclude=exclude, filter=filter_text, diversity=diversity)
    candidates = Candidates(
        n_items,
        filter=None if filter_text is None else this.model.masks.of(filter_text, this.catalogue),
        exclude=pipeline.rows_of(snapshot, exclude),
        hidden=this.catalogue.hidden,
        seen=snapshot.seen_rows(1),
    )
    rows = retrieved_rows(snapshot, snapshot.trained_user(1), candidates, pipeline.n_retrieved(snapshot, request))
    given_rows = np.concatenate([rows[::-1], this.catalogue.hidden, snapshot.seen_rows(1), rows[:1]])
    whole = make_list(this.model, request, USER, 7.0)
    split = make_list(this.model._replace(retrieved=given_rows), request, USER, 7.0)
    assert (split.rows, split.scores.tolist()) == (whole.rows, whole.scores.tolist())


def test_lists_for_all_do_not_depend_on_retrieved_candidates() -> None:
    """Popular and similar items come from the catalogue."""
    this = world(60, "ranked", hides=False)
    limited = this.model._replace(retrieved=np.array([3, 5]))
    for request in (ListRequest(10), ListRequest(10, similar_to="i3"), ListRequest(10, "u1", seeds=("i2", "i5"))):
        user = None if request.user_id is None else USER
        assert make_list(limited, request, user, 7.0).rows == make_list(this.model, request, user, 7.0).rows
    assert set(make_list(limited, ListRequest(10, "u1"), USER, 7.0).rows) <= {3, 5}


def test_a_list_among_given_items_is_reranked() -> None:
    """All items given: the order is that of the whole catalogue."""
    snapshot = world(60, "ranked", hides=False).model.snapshot
    request = TopNRequest(2, 20, offset=3)
    (whole,) = personal(snapshot, [request])
    among = personal_among(snapshot, request, np.arange(60))
    assert (among.rows.tolist(), among.scores.tolist()) == (whole.rows.tolist(), whole.scores.tolist())
    (plain,) = scoring.personal(snapshot, [request])
    assert plain.rows.tolist() != whole.rows.tolist()


@pytest.mark.parametrize("n_candidates", [1, 60])
def test_the_number_of_candidates_decides_how_far_the_ranker_reaches(n_candidates: int) -> None:
    """With one candidate the order is that of the first stage, and with all that of the ranker alone."""
    snapshot = world(60, "ranked", hides=False).model.snapshot
    ranker = DistanceRanker(np.arange(4, dtype=np.float32), n_candidates)
    tower = MeanTower(np.eye(4, dtype=np.float32), np.zeros((1, 4), np.float32))
    snapshot = replace(snapshot, networks=Networks(tower, ranker=ranker))
    (ranking,) = personal(snapshot, [TopNRequest(1, 60)])
    if n_candidates == 1:
        (expected,) = scoring.personal(snapshot, [TopNRequest(1, 60)])
        assert ranking.rows.tolist() == expected.rows.tolist()
    else:
        assert sorted(ranking.scores, reverse=True) == ranking.scores.tolist()
        assert len(ranking.rows) == 60 - len(snapshot.seen_rows(1))
