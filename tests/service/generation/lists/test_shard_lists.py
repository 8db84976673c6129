"""Lists in bulk are those of the service: of every kind of model, with filters, hidden items and live events."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from scipy.sparse import csr_array

from service.generation.bulk_users import BulkUsers
from service.generation.lists.list_model import BulkModel
from service.generation.lists.shard_lists import ShardLists, list_user, shard_lists
from service.generation.lists.shard_users import ShardUsers
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.pipeline import make_list
from service.models.index.item_index import ItemIndex
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from telemetry.batch import EventPosition
from telemetry.live.live_event import LiveEvent
from tests.support.models.list_world import SIZES, World, world
from tests.support.replicas.replica_app import Client, body

NOW_S = 7.0
FILTER = 'genres == "Comedy" and year < 1996'
SEEN_TYPES = frozenset({"rating", "purchase", "dismiss"})


def event(user_id: str, seq: int, item_id: str, type_: str = "rating") -> LiveEvent:
    return LiveEvent(
        user_id, item_id, type_, 5.0 if type_ == "rating" else None, seq, seq, "", EventPosition("a", 1, seq)
    )


def live_of(snapshot: ModelSnapshot) -> dict[str, list[LiveEvent]]:
    """Return what a known user and two strangers did; one of them with nothing that the model knows."""
    ids = snapshot.items.id_of
    return {
        "u1": [event("u1", 1, ids[0]), event("u1", 2, ids[2], "impression"), event("u1", 3, ids[1], "view")],
        "stranger": [event("stranger", 4, ids[3]), event("stranger", 5, ids[2])],
        "passer-by": [event("passer-by", 6, "no such item")],
    }


def bulk_model(of: World, n: int, filter_: str | None, factor: float | None = None) -> BulkModel:
    mask = None if filter_ is None else of.model.masks.of(filter_, of.catalogue)
    request = ListRequest(n, filter=filter_, impression_factor=factor)
    return BulkModel(of.model.snapshot, request, of.catalogue.unavailable_rows(NOW_S), mask, SEEN_TYPES)


def made(model: BulkModel, users: Sequence[str], live: dict[str, list[LiveEvent]]) -> ShardLists:
    """Make lists as a worker does, with the parts of its users alone."""
    rows = np.array([model.snapshot.users.row_of.get(user, -1) for user in users])
    events = {place: live[user] for place, user in enumerate(users) if user in live}
    return shard_lists(model.for_workers, ShardUsers.of(model.snapshot, users, rows, events))


@pytest.mark.parametrize("filter_", [None, FILTER])
@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("kind", ["factors", "neighbours", "ranked"])
@pytest.mark.parametrize("n_items", SIZES)
def test_lists_are_those_of_the_pipeline(n_items: int, kind: str, filter_: str | None, *, hides: bool) -> None:
    """Of users as trained, with live events, and unknown ones; scores to the last bit, and sources."""
    of = world(n_items, kind, hides)
    snapshot = of.model.snapshot
    users = [*snapshot.users.id_of[::-1], "stranger", "passer-by", "nobody"]
    live = live_of(snapshot)
    for factor in (None, 0.5):
        model = bulk_model(of, 13, filter_, factor)
        lists = made(model, users, live)
        for place, user_id in enumerate(users):
            row = snapshot.users.row_of.get(user_id)
            user = None if row is None else ListUser(row)
            if user_id in live:
                user = list_user(snapshot, -1 if row is None else row, live[user_id], model)
            expected = make_list(of.model, model.request._replace(user_id=user_id), user, NOW_S)
            count = int(lists.counts[place])
            assert lists.rows[place, :count].tolist() == expected.rows
            assert lists.scores[place, :count].tobytes() == expected.scores.tobytes()
            sources = ["personal" if flag else "popular" for flag in lists.is_personal[place, :count]]
            assert sources == list(expected.sources)


def test_neighbours_among_users_need_all_users(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """A part of the users would miss their neighbours."""
    base = make_snapshot(n_users=30, n_items=60)
    near = np.maximum(base.user_factors @ base.user_factors.T, 0)
    np.fill_diagonal(near, 0)
    weights = csr_array(near)
    snapshot = replace(
        base,
        user_factors=base.user_factors[:, :0],
        item_factors=base.item_factors[:, :0],
        neighbourhood=Neighbourhood("users", "weighted_mean", "residual", weights),
    )
    users = BulkUsers.of_model(snapshot)
    model = BulkModel(snapshot, ListRequest(10))
    whole = shard_lists(model.for_workers, ShardUsers.of(snapshot, users.ids, users.rows, {}))
    some = shard_lists(model.for_workers, ShardUsers.of(snapshot, users.ids[20:], users.rows[20:], {}))
    assert np.array_equal(whole.rows[20:], some.rows)
    assert whole.scores[20:].tobytes() == some.scores.tobytes()


def test_an_item_index_takes_no_part(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """Every item is scored: the index of a large catalogue may miss one."""
    snapshot = make_snapshot(n_users=9, n_items=500)
    indexed = replace(snapshot, item_index=cast("ItemIndex", object()))
    users = BulkUsers.of_model(snapshot)
    with_index, without = (
        shard_lists(BulkModel(model, ListRequest(20)).for_workers, ShardUsers.of(model, users.ids, users.rows, {}))
        for model in (indexed, snapshot)
    )
    assert with_index.scores.tobytes() == without.scores.tobytes()


async def test_lists_are_those_of_the_api(client: Client, context: Any) -> None:
    """`GET /v1/recommendations/{user_id}` of the replica's real application."""
    snapshot = context.store.current()
    users = [*snapshot.users.id_of, "nobody"]
    lists = made(BulkModel(snapshot, ListRequest(25)), users, {})
    for place, user_id in enumerate(users):
        answer = await body(client, "GET", f"/v1/recommendations/{user_id}?n=25", 200)
        count = int(lists.counts[place])
        found = zip(lists.rows[place, :count].tolist(), lists.scores[place, :count].round(6).tolist(), strict=True)
        assert [(snapshot.items.id_of[row], score) for row, score in found] == [
            (item["item_id"], item["score"]) for item in answer["items"]
        ]
