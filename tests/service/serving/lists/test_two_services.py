"""Lists of a ranking service with the candidates of another one, over HTTP, on the real applications."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from ops.commands import replay
from ops.console.progress import StageProgress
from service.config import Config
from service.metrics import Metrics
from service.models.files import artefact
from service.models.fold_in.settings import FoldIn
from service.models.history.weights import HistoryWeights
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.security.api_key import new_key
from service.security.keyring import Keyring
from service.serving.app import build_app
from service.serving.http.settings import ServerConfig
from service.serving.model.store import ModelStore
from service.serving.replica.context import ReplicaContext
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support.replicas.replica_app import body
from tests.support.replicas.two_services import TwoServices, two_services

N_ITEMS = 300
Make = Callable[..., ModelSnapshot]
Publish = Callable[[Path, ModelSnapshot], str]


def model(make_snapshot: Make, seed: int = 0) -> ModelSnapshot:
    """A model that folds in, with attributes."""
    records = [ItemRecord(f"Title {row}", {"genres": ["Drama" if row % 3 else "Comedy"]}) for row in range(N_ITEMS)]
    return replace(
        make_snapshot(n_items=N_ITEMS, seed=seed),
        fold_in=FoldIn("decayed_sum", HistoryWeights(half_life=2.0, window=20)),
        item_records=ItemRecords.of(records),
    )


def with_other_users(made: ModelSnapshot) -> ModelSnapshot:
    """A model of the same embedding space that ranks differently, for another user besides."""
    return replace(
        made,
        users=Vocabulary([*made.users.id_of[:-1], "late"]),
        user_factors=np.roll(made.user_factors, 1, axis=0),
    )


@pytest.fixture
async def services(
    request: pytest.FixtureRequest, tmp_path: Path, make_snapshot: Make, publish_snapshot: Publish
) -> AsyncIterator[TwoServices]:
    """A parameter is the limit of a body, in bytes."""
    server = ServerConfig(body_limit_bytes=getattr(request, "param", ServerConfig.body_limit_bytes))
    config = Config(home=tmp_path, server=server)
    publish_snapshot(config.models_dir, model(make_snapshot))
    async with two_services(config) as services:
        yield services


@pytest.fixture
async def alone(services: TwoServices, tmp_path: Path) -> AsyncIterator[Any]:
    """One process that does all, with the same model."""
    version = services.ranking.context.store.version
    assert version is not None
    producer = Producer(tmp_path / "alone", 0, services.config.producer, MemoryStream(MemoryServer()))
    store = ModelStore(artefact.load(services.config.models_dir / version))
    async with TestClient(TestServer(build_app(ReplicaContext(services.config, store, producer, Metrics())))) as client:
        yield client
    producer.close()


def listed(answer: dict[str, Any]) -> list[tuple[str, float, str]]:
    return [(item["item_id"], item["score"], item["source"]) for item in answer["items"]]


def degraded_lists(services: TwoServices) -> float | None:
    metrics = services.ranking.context.metrics
    return metrics.registry.get_sample_value("recollect_degraded_total", {"level": "popular_candidates"})


@pytest.mark.parametrize(
    "query",
    [
        {"user_id": "u1"},
        {"user_id": "u2", "n": 50, "offset": 3, "exclude": ["i1", "i2"]},
        {"user_id": "u3", "filter": 'genre == "Comedy"', "boosts": [{"filter": 'genre == "Drama"', "factor": 3}]},
        {"user_id": "u4", "diversity": 0.5, "pins": [{"item_id": "i7", "position": 1}], "explain": 2},
        {"user_id": "nobody", "session": ["i3", "i5"]},
        {"user_id": "u5", "include": ["i1", "i2", "i3"]},
        {"user_id": "nobody"},
        {"seeds": ["i1"]},
    ],
)
async def test_a_list_is_that_of_one_process(services: TwoServices, alone: Any, query: dict[str, Any]) -> None:
    """Items, scores, sources and explanations; only lists by a user's vector ask the other service."""
    answer = await services.recommend(**query)
    expected = await body(alone, "POST", "/v1/recommendations", 200, json=query)
    assert listed(answer) == listed(expected)
    assert [item.get("because") for item in answer["items"]] == [item.get("because") for item in expected["items"]]
    assert answer["degraded"] is None
    asked = services.ranking.context.candidates
    assert asked is not None
    is_personal = {"user_id", "include"} & query.keys() == {"user_id"} and query != {"user_id": "nobody"}
    assert asked.calls == int(is_personal)
    assert asked.unanswered == 0


@pytest.mark.parametrize("services", [1024], indirect=True)
@pytest.mark.parametrize(
    "query",
    [
        {"user_id": "u1", "offset": 10_000, "n": 20},
        # The body of the query has the vector and the seen items, too.
        {"user_id": "u1", "exclude": [f"i{row}" for row in range(100, 215)]},
    ],
)
async def test_a_list_that_asks_for_too_much_is_made_alone(
    services: TwoServices, alone: Any, query: dict[str, Any]
) -> None:
    """Far down, or with more items to leave out than a body may have; it is not degraded."""
    answer = await services.recommend(**query)
    expected = await body(alone, "POST", "/v1/recommendations", 200, json=query)
    assert listed(answer) == listed(expected)
    assert answer["degraded"] is None
    asked = services.ranking.context.candidates
    assert asked is not None
    assert asked.calls == 0
    await services.recommend(user_id="u1")
    assert asked.calls == 1


async def test_lists_are_made_from_popular_candidates_while_the_service_is_away(services: TwoServices) -> None:
    """Marked in the body, the header, the event and the metrics; on every route of a user."""
    await services.end_candidates()
    made = [await services.recommend(user_id="u1", n=5)]
    client = services.ranking.client
    made.append(await body(client, "GET", "/v1/recommendations/u1?n=5", 200))
    many = await body(client, "POST", "/v1/recommendations/batch", 200, json={"requests": [{"user_id": "u1", "n": 5}]})
    made += many["lists"]
    assert {answer["degraded"] for answer in made} == {"popular_candidates"}
    assert len({tuple(listed(answer)) for answer in made}) == 1
    assert {source for _, _, source in listed(made[0])} == {"personal"}
    async with client.get("/recommend/u1") as plain:
        assert plain.headers["X-Degraded"] == "popular_candidates"
        assert len((await plain.text()).split(",")) == 20
    assert degraded_lists(services) == 4
    # Lists that need no candidates are as always.
    assert (await services.recommend(seeds=["i1"]))["degraded"] is None
    assert (await services.recommend(n=3))["degraded"] is None


async def test_versions_of_two_spaces_do_not_meet(
    services: TwoServices, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """The candidates service keeps the space before for a while; after that the lists are degraded."""
    models_dir = services.config.models_dir
    other = publish_snapshot(models_dir, model(make_snapshot, seed=9))
    before = services.ranking.context.store.current()
    services.candidates.swap(other)
    assert (await services.recommend(user_id="u1"))["degraded"] is None
    services.ranking.swap(other)
    assert (await services.recommend(user_id="u1"))["degraded"] is None
    services.ranking.swap(before.version)
    third = publish_snapshot(models_dir, model(make_snapshot, seed=10))
    services.candidates.swap(third)
    answer = await services.recommend(user_id="u1")
    assert (answer["degraded"], answer["model"]) == ("popular_candidates", before.version)
    asked = services.ranking.context.candidates
    assert asked is not None
    assert asked.failures["embedding_space"] == 2
    body_of_vector = {"vector": [0.0] * 8, "embedding_space": before.embedding_space}
    refusal = await body(services.candidates.client, "POST", "/v1/candidates", 409, json=body_of_vector)
    assert refusal["type"] == "/problems/other-embedding-space"
    assert third in refusal["detail"]


async def test_a_ranking_model_of_the_same_space_is_swapped_alone(
    services: TwoServices, make_snapshot: Make, publish_snapshot: Publish
) -> None:
    """Users and ranks are of the new version, candidates of the old one."""
    before = await services.recommend(user_id="u1")
    new = publish_snapshot(services.config.models_dir, with_other_users(model(make_snapshot)))
    services.ranking.swap(new)
    after = await services.recommend(user_id="u1")
    late = await services.recommend(user_id="late")
    assert (after["model"], after["degraded"], late["degraded"]) == (new, None, None)
    assert listed(after) != listed(before)
    assert late["items"][0]["source"] == "personal"


async def test_the_candidates_service_has_no_lists_of_users(services: TwoServices) -> None:
    """It has the items, and every other route is one that does not exist."""
    client = services.candidates.client
    for path in ("/v1/recommendations/u1", "/recommend/u1", "/v1/popular", "/v1/users/u1"):
        assert (await body(client, "GET", path, 404))["type"] == "/problems/not-found"
    await body(client, "POST", "/v1/events", 404, json={"events": []})
    assert (await body(client, "GET", "/v1/items/i1", 200))["title"] == "Title 1"
    assert len((await body(client, "GET", "/v1/items/i1/similar?n=4", 200))["items"]) == 4
    space = services.ranking.context.store.current().embedding_space
    for service in (services.candidates, services.ranking):
        assert (await body(service.client, "GET", "/v1/model", 200))["embedding_space"] == space
        async with service.client.get("/readyz") as ready:
            assert ready.headers["X-Embedding-Space"] == space


async def test_a_new_item_is_a_candidate_at_once(services: TwoServices) -> None:
    """As soon as both services know it; one that the ranking service does not know yet is left out."""
    await body(services.candidates.client, "PUT", "/v1/items/new", 202, json={"attributes": {"genres": ["Comedy"]}})
    await services.candidates.context.items.build()
    vector = services.ranking.context.store.current().user_factors[1].tolist()
    query = {"vector": vector, "n": N_ITEMS + 5}
    found = await body(services.candidates.client, "POST", "/v1/candidates", 200, json=query)
    assert "new" in found["item_ids"]
    assert found["catalogue_watermark"]
    assert found["scores"] == sorted(found["scores"], reverse=True)
    whole = {"user_id": "u1", "n": N_ITEMS}
    assert "new" not in [item["item_id"] for item in (await services.recommend(**whole))["items"]]
    await services.ranking.follow()
    assert "new" in [item["item_id"] for item in (await services.recommend(**whole))["items"]]


@pytest.mark.parametrize("changes", [{"vector": [1.0]}, {"vector": []}, {"n": 0}, {"filter": "genre =="}, {"x": 1}])
async def test_a_wrong_query_is_refused(services: TwoServices, changes: dict[str, Any]) -> None:
    """The field is named; as for every body."""
    query = {"vector": [0.5] * 8, **changes}
    refusal = await body(services.candidates.client, "POST", "/v1/candidates", 422, json=query)
    (field,) = changes
    assert refusal["errors"][0]["field"] == field


async def test_the_key_of_the_caller_counts_at_both_services(services: TwoServices) -> None:
    """No other secret is needed between them."""
    text, key = new_key(("recommend",), now_s=time.time())
    for service in (services.ranking, services.candidates):
        service.context.gate.keyring = Keyring([key])
    for headers in ({"Authorization": f"Bearer {text}"}, {"X-API-Key": text}):
        answer = await body(services.ranking.client, "GET", "/v1/recommendations/u1", 200, headers=headers)
        assert answer["degraded"] is None
    await body(services.candidates.client, "POST", "/v1/candidates", 401, json={"vector": [0.5] * 8})


async def test_every_list_is_made_again(services: TwoServices, make_snapshot: Make, publish_snapshot: Publish) -> None:
    """Before and after item changes that one of the services knew, a swap of one, and while the other was away."""
    queries: list[dict[str, Any]] = [
        {"user_id": "u1", "n": 30},
        {"user_id": "u2", "filter": 'genre == "Comedy"', "diversity": 0.5},
        {"user_id": "u3", "boosts": [{"filter": 'genre == "Drama"', "factor": 3}]},
        {"user_id": "nobody", "session": ["i3", "i5"]},
    ]

    async def ask() -> None:
        for query in queries:
            answer = await services.recommend(**query)
            await services.recommend(**query, page_token=answer["next_page_token"])

    await ask()
    events = [{"type": "rating", "user_id": "u1", "item_id": f"i{row}", "value": 5.0} for row in range(3)]
    await body(services.ranking.client, "POST", "/v1/events", 202, json={"events": events})
    at_candidates = services.candidates.client
    await body(at_candidates, "PUT", "/v1/items/new", 202, json={"attributes": {"genres": ["Comedy"]}})
    await body(at_candidates, "PUT", "/v1/items/i4", 202, json={"hidden": True})
    await services.candidates.context.items.build()
    await ask()
    await services.ranking.follow()
    await ask()
    services.ranking.swap(publish_snapshot(services.config.models_dir, with_other_users(model(make_snapshot))))
    await ask()
    await services.end_candidates()
    await ask()
    # The candidates service can still ship its events.
    await services.archived()
    with StageProgress() as stages:
        replays = replay.replay(services.config, None, 1000, 0, stages)
    assert [each.rebuilt.problem or each.event.request for each in replays if not each.matches] == []
    assert len(replays) == 40
    assert sum(each.event.degraded == "popular_candidates" for each in replays) == 8
    sources = [(each.event.request or {})["candidates"] for each in replays]
    assert {bool(source.get("watermark")) for source in sources} == {True, False}
    assert {source.get("model") == each.event.model for source, each in zip(sources, replays, strict=True)} == {
        True,
        False,
    }
