"""Lists that are not the best by score: diverse ones, explored ones, and those of a reduced level."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lists.diversity import diversify, pool_size
from service.lists.exploration import Exploration
from service.lists.item_scores import ListUser
from service.lists.item_similarity import similarities_among
from service.lists.list_request import ListRequest, Pin
from service.lists.pipeline import ListModel, make_list, plain_list
from service.lists.reduced import reduced_ranking
from service.models.user_clusters import UserClusters
from tests.support.models.list_world import World, world

worlds = st.builds(world, st.sampled_from([60, 400]), st.sampled_from(["factors", "neighbours"]), st.booleans())


@settings(max_examples=40, deadline=None)
@given(worlds, st.integers(1, 30), st.sampled_from([0.2, 0.7, 1.0]))
def test_a_diverse_list_is_chosen_from_the_best_items(this: World, n: int, diversity: float) -> None:
    """By the greedy rule, over the pool that the same request without diversity would list."""
    snapshot = this.model.snapshot
    pool = make_list(this.model, ListRequest(pool_size(n + 1), "u1"), ListUser(1), 7.0)
    rows = np.array(pool.rows)
    chosen = diversify(pool.scores, similarities_among(snapshot, rows), n, diversity)
    made = make_list(this.model, ListRequest(n, "u1", diversity=diversity), ListUser(1), 7.0)
    assert made.rows == rows[chosen].tolist()
    assert made.scores.tolist() == pool.scores[chosen].tolist()


@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(1, 30), st.integers(0, 20), st.text("abc", min_size=8, max_size=8))
def test_an_explored_list_keeps_its_head_and_samples_the_rest(this: World, n: int, offset: int, id_: str) -> None:
    """The same id makes the same list; its next page has none of its items."""
    how = Exploration(0.5, 3.0, 1.0)
    request = ListRequest(n, "u1", offset, exploration=how)
    made = make_list(this.model, request, ListUser(1), 7.0, id_)
    best = make_list(this.model, request._replace(exploration=None), ListUser(1), 7.0)
    head = how.n_head(len(best.rows))
    assert made.rows[:head] == best.rows[:head]
    assert len(set(made.rows)) == len(made.rows) == len(best.rows)
    assert made.has_more == best.has_more
    assert made.propensities is not None
    assert made.propensities[:head].tolist() == [1.0] * head
    assert ((made.propensities > 0) & (made.propensities <= 1)).all()
    again = make_list(this.model, ListRequest.from_fields(request.as_fields, "u1"), ListUser(1), 7.0, id_)
    assert (again.rows, again.propensities is not None and again.propensities.tolist()) == (
        made.rows,
        made.propensities.tolist(),
    )
    ids = [this.model.snapshot.items.id_of[row] for row in made.rows]
    if made.has_more and (token := made.page.token_of_next(request.kind, ids)) is not None:
        following = make_list(this.model, request._replace(page_token=token), ListUser(1), 7.0, id_ + "2")
        assert not set(following.rows) & set(made.rows)


def test_a_pinned_item_of_an_explored_list_is_certain() -> None:
    this = world(60, "factors", hides=False)
    pin = this.model.snapshot.items.id_of[5]
    request = ListRequest(6, "u1", pins=(Pin(pin, 5),), exploration=Exploration(0.0))
    made = make_list(this.model, request, ListUser(1), 7.0, "any")
    assert made.propensities is not None
    assert (made.rows[5], made.propensities[5]) == (5, 1.0)
    assert (made.propensities[:5] < 1).all()


@settings(max_examples=60, deadline=None)
@given(worlds, st.sampled_from(["cluster", "popular"]), st.integers(1, 80), st.integers(0, 30), st.booleans())
def test_a_reduced_list_is_the_same_by_look_up(this: World, level: str, n: int, offset: int, clusters: bool) -> None:
    """As by the scores of the level, beyond the end of the cluster's list too."""
    snapshot = this.model.snapshot
    if clusters:
        listed = np.random.default_rng(n).permutation(len(snapshot.items))[:40].reshape(2, 20).astype(np.int32)
        snapshot = replace(snapshot, user_clusters=UserClusters(np.array([1, 0, 1], np.uint8), listed))
    model = ListModel(snapshot, this.catalogue, this.model.masks)
    request = ListRequest(n, "u1", offset, level="cluster" if level == "cluster" else "popular")
    assert request.is_plain
    user = ListUser(1)
    exclude = np.concatenate([user.seen_rows(snapshot), this.catalogue.hidden])
    ranking = reduced_ranking(snapshot, level, 1, n + 1, offset=offset, exclude=exclude)
    fast = plain_list(snapshot, request, user, this.catalogue.hidden, ranking)
    slow = make_list(model, request, user, 7.0)
    assert (fast.rows, fast.scores.tolist()) == (slow.rows, slow.scores.tolist())
    assert set(fast.sources) == set(slow.sources) <= {"popular"}
    assert (fast.has_more, fast.shortfall) == (slow.has_more, slow.shortfall)
    if clusters and level == "cluster":
        assert snapshot.user_clusters is not None
        head = [row for row in snapshot.user_clusters.items[0].tolist() if row not in set(exclude.tolist())]
        assert fast.rows[: max(0, len(head) - offset)] == head[offset : offset + n]


@pytest.mark.parametrize("diversity", [0.0, 1.0])
def test_the_request_of_a_chosen_list_reads_back(diversity: float) -> None:
    request = ListRequest(5, "u1", diversity=diversity, exploration=Exploration(0.1, 2.0, 0.5), level="trained")
    assert ListRequest.from_fields(request.as_fields, "u1") == request
