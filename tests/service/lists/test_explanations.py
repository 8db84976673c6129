"""Explanations of lists: the shares are those of the definition, and add up to the scores."""

import numpy as np
import pytest

from service.lists.item_scores import ListUser
from service.lists.list_request import Boost, ListRequest, Pin
from service.lists.pipeline import make_list
from service.lists.sessions import SessionItem
from tests.support.models.list_world import world

REQUESTS = [
    ListRequest(12, "u1", explain=4),
    ListRequest(12, "u1", explain=20, boosts=(Boost("year >= 1990", 2.0),), pins=(Pin("i5", 3),)),
    ListRequest(12, None, session=(SessionItem("i2"), SessionItem("i7", "purchase"), SessionItem("i2")), explain=2),
    ListRequest(12, None, seeds=("i2", "i3"), explain=2),
]


@pytest.mark.parametrize("kind", ["factors", "neighbours"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_shares_others_and_base_add_up_to_the_score(kind: str, request_: ListRequest) -> None:
    """The named items are the largest shares above 0, in order, and of the user's history, session or seeds."""
    this = world(60, kind, hides=False)
    user = None if request_.user_id is None else ListUser(1)
    made = make_list(this.model, request_, user, 7.0)
    assert made.explanations is not None
    assert len(made.explanations) == len(made.rows)
    row_of = this.model.snapshot.items.row_of
    given = [*request_.seeds, *(item.item_id for item in request_.session)]
    allowed = {row_of[item_id] for item_id in given} or set(this.model.snapshot.seen_rows(1).tolist())
    for explanation, score in zip(made.explanations, made.scores.tolist(), strict=True):
        shares = [share for _, share in explanation.items]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) <= request_.explain
        assert sum(shares) + explanation.others + explanation.base == pytest.approx(score)
        assert {row for row, _ in explanation.items} <= allowed
    assert any(explanation.items for explanation in made.explanations)


def test_a_share_is_what_the_score_loses_without_the_item() -> None:
    """Of a sum of neighbour weights, one interaction at a time."""
    this = world(60, "neighbours", hides=False)
    snapshot = this.model.snapshot
    made = make_list(this.model, ListRequest(10, None, session=(SessionItem("i2"),), explain=5), None, 7.0)
    row = snapshot.items.row_of["i2"]
    weights = snapshot.neighbourhood.weights.toarray()[row] if snapshot.neighbourhood is not None else np.zeros(60)
    assert made.explanations is not None
    for listed, explanation in zip(made.rows, made.explanations, strict=True):
        assert explanation.items == ([(row, float(weights[listed]))] if weights[listed] > 0 else [])


def test_popular_lists_have_no_explanation() -> None:
    """There is no history to name."""
    this = world(60, "factors", hides=False)
    assert make_list(this.model, ListRequest(5, explain=3), None, 7.0).explanations is None
