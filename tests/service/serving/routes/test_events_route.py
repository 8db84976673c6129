"""POST /v1/events, on the real application with an in-memory stream."""

import time
from dataclasses import replace

from aiohttp.test_utils import TestClient, TestServer

from service.config import EventsConfig
from service.serving.app import build_app
from service.serving.model.store import ModelStore
from service.serving.replica.context import ReplicaContext
from telemetry.ids import rfc3339_ms
from tests.support.replicas.replica_app import Client, body, recorded_events


async def test_events_are_accepted_with_ids_and_times(client: Client, context: ReplicaContext) -> None:
    """A missing event_id is made from the Idempotency-Key and the row; times become UTC."""
    rows = [
        {"type": "rating", "user_id": "u1", "item_id": "i1", "value": 4, "ts": "2026-11-21T02:02:03.4567+01:00"},
        {"event_id": "mine-0001", "type": "click", "user_id": "new", "item_id": "unheard", "position": 3},
        {"type": "rating", "user_id": "u1", "item_id": "i1", "value": 99},
    ]
    headers = {"Idempotency-Key": "key_0123456789"}
    answer = await body(client, "POST", "/v1/events", 202, json={"events": rows}, headers=headers)
    assert answer == {"accepted": 3, "durability": "disk"}
    first, second, third = recorded_events(context)
    assert (first["event_id"], second["event_id"]) == ("key_0123456789-0", "mine-0001")
    assert first["client_time"] == "2026-11-21T01:02:03.456Z"
    assert (first["type"], first["value"], second["position"], second["value"]) == ("rating", 4.0, 3, None)
    assert (first["marks"], second["marks"]) == ([], ["unknown_item"])
    assert (third["marks"], third["value"]) == (["out_of_scale"], 99.0)


async def test_a_skewed_clock_is_marked_and_accepted(client: Client, context: ReplicaContext) -> None:
    """The settings decide what is skewed; without a model no item is unknown."""
    rows = [
        {"type": "view", "user_id": "u1", "item_id": "i1", "ts": text}
        for text in (rfc3339_ms(time.time()), "2001-01-01T00:00:00Z", "2101-01-01T00:00:00Z")
    ]
    await body(client, "POST", "/v1/events", 202, json={"events": rows})
    assert [event["marks"] for event in recorded_events(context)] == [[], ["clock_skew"], ["clock_skew"]]
    patient = replace(
        context,
        config=replace(context.config, events=EventsConfig(clock_skew_ahead_s=1e12, clock_skew_behind_s=1e12)),
        store=ModelStore(),
    )
    async with TestClient(TestServer(build_app(patient))) as other:
        rows[0]["item_id"] = "unheard"
        await body(other, "POST", "/v1/events", 202, json={"events": rows})
    assert [event["marks"] for event in recorded_events(context)][3:] == [[], [], []]


async def test_an_idempotency_key_stands_for_one_body(client: Client, context: ReplicaContext) -> None:
    """The same body is 202 again, another one is 422; an invalid or refused body may be corrected under its key."""
    headers = {"Idempotency-Key": "key_0123456789"}
    first = {"events": [{"type": "view", "user_id": "u1", "item_id": "i1"}]}
    other = {"events": [{"type": "view", "user_id": "u1", "item_id": "i2"}]}
    await body(client, "POST", "/v1/events", 422, json={"events": []}, headers=headers)
    for _ in range(2):
        await body(client, "POST", "/v1/events", 202, json=first, headers=headers)
    problem = await body(client, "POST", "/v1/events", 422, json=other, headers=headers)
    assert problem["detail"].startswith("Idempotency-Key: was sent with another body")
    assert [event["event_id"] for event in recorded_events(context)] == ["key_0123456789-0"] * 2
    # Only what the balancer made of its own id of the request is not a client's: another one is never sent again.
    for status, events in ((202, first), (422, other)):
        await body(client, "POST", "/v1/events", status, json=events, headers={"Idempotency-Key": "ngx-0123456789"})
    made = {"Idempotency-Key": "ngx-0123456789", "X-Request-Id": "0123456789"}
    for events in (first, other):
        await body(client, "POST", "/v1/events", 202, json=events, headers=made)
    context.producer.close()
    await body(client, "POST", "/v1/events", 503, json=first, headers={"Idempotency-Key": "key_refused"})
    await body(client, "POST", "/v1/events", 503, json=other, headers={"Idempotency-Key": "key_refused"})
