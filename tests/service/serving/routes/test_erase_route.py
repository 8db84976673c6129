"""Erasures over HTTP, and pseudonyms, on the real application with an in-memory stream."""

from collections.abc import Callable
from dataclasses import replace

import orjson
from aiohttp.test_utils import TestClient, TestServer

from service.models.files.erased_users import without_users
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.serving.app import build_app
from service.serving.replica.context import ReplicaContext
from telemetry.pseudonym import Pseudonymiser
from tests.support.replicas.replica_app import Client, body, recorded_events


async def test_an_erase_is_recorded_and_effective_at_once(client: Client, context: ReplicaContext) -> None:
    """202 with a receipt; the user is unknown until a model with them follows one without them."""
    await body(client, "GET", "/v1/recommendations/u1", 200)
    receipt = await body(client, "DELETE", "/v1/users/u1", 202)
    assert set(receipt) == {"erase_id", "user_id", "requested_at", "durability"}
    assert (receipt["user_id"], receipt["durability"]) == ("u1", "disk")
    order = recorded_events(context)[1]
    assert (order["class"], order["kind"], order["user_id"]) == ("system", "erase", "u1")
    assert (order["event_id"], order["received_at"]) == (receipt["erase_id"], receipt["requested_at"])
    popular = (await body(client, "GET", "/v1/popular", 200))["items"]
    assert (await body(client, "GET", "/v1/recommendations/u1", 200))["items"] == popular
    await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "include": ["i1", "i2"]})
    assert {item["source"] for item in recorded_events(context)[-1]["items"]} == {"popular"}
    assert (await body(client, "GET", "/v1/recommendations/u2", 200))["items"] != popular
    again = await body(client, "DELETE", "/v1/users/u1", 202)
    assert again["erase_id"] != receipt["erase_id"]
    knowing = context.store.current()
    context.store.swap(replace(knowing))
    assert (await body(client, "GET", "/v1/recommendations/u1", 200))["items"] == popular
    context.store.swap(without_users(knowing, [1]))
    assert (await body(client, "GET", "/v1/recommendations/u1", 200))["items"] == popular
    context.store.swap(knowing)
    assert (await body(client, "GET", "/v1/recommendations/u1", 200))["items"] != popular


async def test_an_erase_is_logged_before_it_is_recorded(client: Client, context: ReplicaContext) -> None:
    """By its id and never by the user; without an entry in the security log nothing is erased."""
    receipt = await body(client, "DELETE", "/v1/users/u1", 202, headers={"X-Request-Id": "0123456789abcdef"})
    (path,) = context.config.security_dir.iterdir()
    (entry,) = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert (entry["what"], entry["by"], entry["key"]) == ("erase", "replica-0", None)
    assert (entry["erase_id"], entry["request_id"]) == (receipt["erase_id"], "0123456789abcdef")
    assert b"u1" not in path.read_bytes()
    path.unlink()
    path.mkdir()
    problem = await body(client, "DELETE", "/v1/users/u2", 503)
    assert problem["detail"] == "The security log cannot be written at the moment."
    assert [event["kind"] for event in recorded_events(context)] == ["erase"]


async def test_an_erase_that_cannot_be_recorded_is_refused_and_changes_nothing(
    client: Client, context: ReplicaContext
) -> None:
    """503 with Retry-After, as for events; an unknown user is erased like any other."""
    await body(client, "DELETE", "/v1/users/nobody%2Fknows%20%E2%9C%93", 202)
    assert recorded_events(context)[-1]["user_id"] == "nobody/knows ✓"
    assert not context.store.erased
    context.producer.close()
    async with client.delete("/v1/users/u1") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    answer = await body(client, "GET", "/v1/recommendations/u1", 200)
    assert {item["source"] for item in answer["items"]} == {"personal"}


async def test_telemetry_gets_pseudonyms_and_callers_their_own_ids(client: Client, context: ReplicaContext) -> None:
    """In lists, events and erasures; the answers do not change."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    plain = await body(client, "GET", "/v1/recommendations/u1", 200)
    async with TestClient(TestServer(build_app(replace(context, pseudonyms=pseudonyms)))) as other:
        hidden = await body(other, "GET", "/v1/recommendations/u1", 200)
        assert (hidden["user_id"], hidden["items"]) == ("u1", plain["items"])
        rows = [{"type": "view", "user_id": "u1", "item_id": "i1"}]
        await body(other, "POST", "/v1/events", 202, json={"events": rows})
        assert (await body(other, "DELETE", "/v1/users/u1", 202))["user_id"] == "u1"
        await body(other, "GET", "/v1/popular", 200)
    assert [event["user_id"] for event in recorded_events(context)] == ["u1", *[pseudonyms.pseudonym("u1")] * 3, None]


async def test_callers_ids_find_users_in_a_model_of_pseudonyms(
    client: Client, context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """A model trained on archived events finds its users, and they can be erased."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    plain = await body(client, "GET", "/v1/recommendations/u1", 200)
    model = make_snapshot(n_items=60)
    context.store.swap(replace(model, users=Vocabulary(pseudonyms.pseudonym(id_) for id_ in model.users.id_of)))
    async with TestClient(TestServer(build_app(replace(context, pseudonyms=pseudonyms)))) as other:
        assert (await body(other, "GET", "/v1/recommendations/u1", 200))["items"] == plain["items"]
        await body(other, "DELETE", "/v1/users/u1", 202)
        for user_id, source in (("u1", "popular"), ("u2", "personal"), ("nobody", "popular")):
            answer = await body(other, "GET", f"/v1/recommendations/{user_id}", 200)
            assert {item["source"] for item in answer["items"]} == {source}
