"""Features of the user in a request for a list, on the real application of one replica."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from service.models.fold_in.fold_in import fold_in
from service.models.history.user_history import NO_HISTORY
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.serving.replica.context import ReplicaContext
from tests.support.networks import tiny_networks
from tests.support.replicas.replica_app import Client, body, recorded_events


@pytest.fixture
def model(context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]) -> ModelSnapshot:
    """The served model, whose tower reads an age and a gender."""
    made = tiny_networks.with_features(make_snapshot(n_items=60))
    context.store.swap(made)
    return made


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with tiny_networks.registered():
        yield


async def recommend(client: Client, **fields: Any) -> Any:
    return await body(client, "POST", "/v1/recommendations", 200, json={"n": 5, **fields})


def ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_the_list_of_a_user_nobody_has_seen_follows_the_features(client: Client, model: ModelSnapshot) -> None:
    """With or without an id; the best items are those of the user whom the tower computes."""
    lists = []
    for categories, features in (([1, 1], {"age": 20, "gender": "F"}), ([3, 2], {"age": 47, "gender": "M"})):
        answer = await recommend(client, user_id="nobody", user_features=features)
        user = fold_in(model, NO_HISTORY, None, np.array(categories, dtype=np.int32))
        assert user is not None
        expected = scoring.personal(model, [scoring.TopNRequest(0, 5, user=user)])[0]
        assert ids(answer) == [model.items.id_of[row] for row in expected.rows]
        assert {item["source"] for item in answer["items"]} == {"personal"}
        assert answer["user_features"] == {"used": ["age", "gender"], "unknown": []}
        assert ids(await recommend(client, user_features=features)) == ids(answer)
        lists.append(ids(answer))
    assert lists[0] != lists[1]
    plain = await recommend(client, user_id="nobody")
    assert "user_features" not in plain
    assert {item["source"] for item in plain["items"]} == {"popular"}


async def test_a_known_user_keeps_what_is_not_given(client: Client, model: ModelSnapshot) -> None:
    """The same features as published change nothing but the way; live events count with them."""
    plain = await recommend(client, user_id="u1")
    assert ids(await recommend(client, user_id="u1", user_features={"gender": "M"})) == ids(plain)
    other = await recommend(client, user_id="u1", user_features={"gender": "F"})
    assert ids(other) != ids(plain)
    event = {"user_id": "u1", "item_id": "i7", "type": "rating", "value": 5}
    await body(client, "POST", "/v1/events", 202, json={"events": [event]})
    after = await recommend(client, user_id="u1", user_features={"gender": "F"})
    assert after["freshness"]["events_applied"] == 1
    assert after["items"] != other["items"]
    seen = {model.items.id_of[row] for row in model.seen_rows(1)} | {"i7"}
    assert not seen & set(ids(after))


async def test_features_go_with_pages_filters_sessions_and_batches(client: Client, model: ModelSnapshot) -> None:
    fields = {"user_features": {"age": 30}, "session": ["i3"], "exclude": ["i9"], "explain": 2}
    first = await recommend(client, n=4, **fields)
    second = await recommend(client, n=4, page_token=first["next_page_token"], **fields)
    assert ids(await recommend(client, n=8, **fields)) == ids(first) + ids(second)
    requests = [{"n": 4, **fields}, {"n": 4}]
    lists = (await body(client, "POST", "/v1/recommendations/batch", 200, json={"requests": requests}))["lists"]
    assert ids(lists[0]) == ids(first)
    assert ids(lists[1]) != ids(first)


async def test_a_model_without_such_features_says_so(
    client: Client, context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """The list is that without them: a new model must not break its callers."""
    context.store.swap(make_snapshot(n_items=60))
    answer = await recommend(client, user_id="u1", user_features={"age": 30})
    assert answer["user_features"] == {"used": [], "unknown": ["age"]}
    assert ids(answer) == ids(await recommend(client, user_id="u1"))
    assert (await body(client, "GET", "/v1/model", 200))["user_features"] == []


async def test_the_model_names_its_features(client: Client, model: ModelSnapshot) -> None:
    assert (await body(client, "GET", "/v1/model", 200))["user_features"] == ["age", "gender"]


async def test_the_served_event_has_the_features(client: Client, context: ReplicaContext, model: ModelSnapshot) -> None:
    """As they were sent, so that the list can be made again; without any, the event is as before."""
    await recommend(client, user_id="u1", user_features={"age": 30, "likes": ["a", "b"], "gender": None})
    await recommend(client, user_id="u1", user_features={})
    first, second = (event["request"] for event in recorded_events(context))
    assert first == {"n": 5, "user_features": {"age": 30, "likes": ["a", "b"], "gender": None}}
    assert second == {"n": 5}


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"user_features": {"age": {"years": 3}}}, "user_features.age", "must be a text of 1 to 256 characters"),
        ({"user_features": {"age": "x" * 257}}, "user_features.age", "must be a text of 1 to 256 characters"),
        ({"user_features": {"age": 1e16}}, "user_features.age", "must be a text of 1 to 256 characters"),
        ({"user_features": {"likes": ["a", 1]}}, "user_features.likes", "must be a text of 1 to 256 characters"),
        ({"user_features": {"not a name": 1}}, "user_features", "must be a letter or _"),
        ({"user_features": {f"a{n}": 1 for n in range(33)}}, "user_features", "32"),
        ({"user_features": [1]}, "user_features", "dictionary"),
        ({"user_features": {"age": 3}, "seeds": ["i3"]}, "", "seeds and user_features cannot be given together"),
    ],
)
async def test_features_of_another_form_are_refused(
    client: Client, model: ModelSnapshot, fields: dict[str, Any], field: str, why: str
) -> None:
    refused = await body(client, "POST", "/v1/recommendations", 422, json=fields)
    assert refused["errors"][0]["field"].startswith(field)
    assert why in refused["detail"]
