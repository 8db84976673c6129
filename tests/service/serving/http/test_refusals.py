"""Refusals of the HTTP API, on the real application with an in-memory stream."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDict
from yarl import URL

from service.serving.app import build_app
from service.serving.http.listener import Listener
from service.serving.model.store import ModelStore
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, body, recorded_events


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"type": "rating", "user_id": "u", "item_id": "i"}, "events[1]"),
        ({"type": "like", "user_id": "u", "item_id": "i"}, "events[1].type"),
        ({"type": "click", "user_id": "", "item_id": "i"}, "events[1].user_id"),
        ({"type": "click", "user_id": "u" * 129, "item_id": "i"}, "events[1].user_id"),
        ({"type": "click", "user_id": "u\n", "item_id": "i"}, "events[1].user_id"),
        ({"type": "click", "user_id": 7, "item_id": "i"}, "events[1].user_id"),
        ({"type": "click", "item_id": "i"}, "events[1].user_id"),
        ({"type": "click", "user_id": "u", "item_id": "i", "colour": "red"}, "events[1].colour"),
        ({"type": "rating", "user_id": "u", "item_id": "i", "value": True}, "events[1].value"),
        ({"type": "rating", "user_id": "u", "item_id": "i", "value": "4"}, "events[1].value"),
        ({"type": "rating", "user_id": "u", "item_id": "i", "value": 1e300}, "events[1].value"),
        ({"type": "click", "user_id": "u", "item_id": "i", "position": -1}, "events[1].position"),
        ({"type": "click", "user_id": "u", "item_id": "i", "position": 10**30}, "events[1].position"),
        ({"type": "click", "user_id": "u", "item_id": "i", "ts": "yesterday"}, "events[1].ts"),
        ({"type": "click", "user_id": "u", "item_id": "i", "ts": "2026-11-21T01:02:03"}, "events[1].ts"),
        ({"type": "click", "user_id": "u", "item_id": "i", "ts": "0001-01-01T00:00:00+23:00"}, "events[1].ts"),
        ({"type": "click", "user_id": "u", "item_id": "i", "event_id": "short"}, "events[1].event_id"),
    ],
)
async def test_one_bad_event_refuses_the_request_and_is_named(
    client: Client, context: ReplicaContext, row: dict[str, Any], field: str
) -> None:
    """422 names the row and the field, and the valid event beside it is not accepted."""
    good = {"type": "click", "user_id": "u", "item_id": "i"}
    problem = await body(client, "POST", "/v1/events", 422, json={"events": [good, row]})
    assert problem["errors"][0]["field"] == field
    assert problem["errors"][0]["row"] == 1
    assert recorded_events(context) == []


async def test_integral_floats_and_leap_seconds_are_accepted(client: Client, context: ReplicaContext) -> None:
    """10.0 is an integer in JSON Schema and JavaScript, and 23:59:60 is a time in RFC 3339."""
    answer = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "n": 3.0, "offset": 2e0})
    assert len(answer["items"]) == 3
    event = {"type": "click", "user_id": "u1", "item_id": "i1", "position": 3.0, "ts": "2016-12-31t23:59:60.5z"}
    await body(client, "POST", "/v1/events", 202, json={"events": [event]})
    recorded = recorded_events(context)[-1]
    assert (recorded["position"], recorded["client_time"]) == (3, "2016-12-31T23:59:59.500Z")
    headers = CIMultiDict([("Idempotency-Key", "key_0123456789"), ("Idempotency-Key", "key_0123456789")])
    problem = await body(client, "POST", "/v1/events", 422, json={"events": [event]}, headers=headers)
    assert problem["errors"] == [{"field": "Idempotency-Key", "message": "was given 2 times"}]


@pytest.mark.parametrize(
    ("path", "raw", "field"),
    [
        ("/v1/recommendations", '{"n": 1, "n": 2}', "n"),
        ("/v1/recommendations", '{"user_id": "a:b", "u\\u0073er_id": "u1"}', "user_id"),
        ("/v1/events", '{"events": [], "events": []}', "events"),
        ("/v1/events", '{"events": [{"type": "view"}, {"item_id": "i:", "value": 1, "value": 5}]}', "events[1].value"),
    ],
)
async def test_a_duplicate_field_is_refused_and_named(
    client: Client, context: ReplicaContext, path: str, raw: str, field: str
) -> None:
    """Parsers differ in whether the first or the last one counts."""
    problem = await body(client, "POST", path, 422, data=raw, headers={"Content-Type": "application/json"})
    assert problem["errors"] == [{"field": field, "message": "is given more than once"}]
    assert recorded_events(context) == []


async def test_every_bad_field_is_named(client: Client) -> None:
    """In a query, path or header as in a body; only events have a row."""
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        ("GET", "/v1/popular?n=0", {}, "n"),
        ("GET", "/v1/popular?n=1&n=2", {}, "n"),
        ("GET", "/v1/popular?m=%ed%a0%80", {}, "m"),
        ("GET", "/v1/popular?%ed%a0%80=1", {}, "\ufffd\ufffd\ufffd"),
        ("GET", "/v1/recommendations/a%00b", {}, "user_id"),
        ("GET", "/v1/items/%ff/similar", {}, "item_id"),
        ("POST", "/v1/events", {"json": {}, "headers": {"Idempotency-Key": "short"}}, "Idempotency-Key"),
        ("POST", "/v1/recommendations", {"json": {"exclude": ["i1", 7]}}, "exclude[1]"),
        ("POST", "/v1/events", {"json": {"events": [{"type": "view", "user_id": "u1"}]}}, "events[0].item_id"),
    ]
    for method, path, options, field in cases:
        target = URL(path, encoded=True)
        async with client.request(method, target, **options) as response:
            assert response.status == 422
            problem = await response.json(content_type=None)
        (error,) = problem["errors"]
        assert error["field"].lower() == field.lower()
        assert error.get("row") == (0 if field.startswith("events") else None)
        assert problem["detail"] == f"{error['field']}: {error['message']}."


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "not JSON": (b"{", 400),
    "empty": (b"", 400),
    "NaN": (b'{"n": NaN}', 400),
    "Infinity": (b'{"n": Infinity}', 400),
    "invalid UTF-8": (b'{"user_id": "\xff"}', 400),
    "lone surrogate": (b'{"user_id": "\\ud800"}', 400),
    "60,000 levels": (b"[" * 30_000 + b"]" * 30_000, 400),
    "40 levels": (b'{"exclude": ' + b"[" * 40 + b"]" * 40 + b"}", 400),
    "an array": (b"[]", 422),
    "a field twice": (b'{"n": 1, "n": 1}', 422),
    "null": (b"null", 422),
    "5,000 digits": (b'{"n": ' + b"9" * 5000 + b"}", 400),
    "n has a fraction": (b'{"n": 10.5}', 422),
    "n is larger than any float": (b'{"n": 1e400}', 400),
    "n is a string": (b'{"n": "10"}', 422),
    "n is true": (b'{"n": true}', 422),
    "n is 0": (b'{"n": 0}', 422),
    "n is 501": (b'{"n": 501}', 422),
    "offset is negative": (b'{"offset": -1}', 422),
    "unknown field": (b'{"user": "u1"}', 422),
    "user_id is a number": (b'{"user_id": 42}', 422),
    "a control character": (b'{"user_id": "a\\u0000"}', 422),
    "exclude is a string": (b'{"exclude": "i1"}', 422),
    "over 64 KiB": (b" " * 65_537, 413),
}


@pytest.mark.parametrize(("raw", "status"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_bad_bodies_are_4xx(client: Client, raw: bytes, status: int) -> None:
    """Always problem+json with a stable type."""
    headers = {"Content-Type": "application/json"}
    async with client.post("/v1/recommendations", data=raw, headers=headers) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"
        problem = orjson.loads(await response.read())
    assert problem["status"] == status
    assert problem["type"] == {400: "/problems/malformed", 413: "/problems/too-large", 422: "/problems/invalid"}[status]
    assert problem["detail"].endswith(".")


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nothing/here", 404, "not-found"),
        ("GET", "/metrics", 404, "not-found"),
        ("DELETE", "/v1/recommendations/u1", 405, "method-not-allowed"),
        ("GET", "/v1/events", 405, "method-not-allowed"),
        ("PUT", "/v1/users/u1", 405, "method-not-allowed"),
        ("HEAD", "/v1/events", 405, None),
        ("DELETE", "/v1/users/", 404, "not-found"),
        ("DELETE", "/v1/users/a/b", 404, "not-found"),
        ("DELETE", "/v1/users/u1?now=1", 422, "invalid"),
        ("DELETE", "/v1/users/a%00b", 422, "invalid"),
        ("DELETE", "/v1/users/" + "u" * 129, 422, "invalid"),
        ("GET", "/v1/recommendations/u1?n=0", 422, "invalid"),
        ("GET", "/v1/recommendations/u1?n=501", 422, "invalid"),
        ("GET", "/v1/recommendations/u1?n=1_0", 422, "invalid"),
        ("GET", "/v1/recommendations/u1?n=%2B5", 422, "invalid"),
        ("GET", "/v1/recommendations/u1?n=", 422, "invalid"),
        ("GET", "/v1/recommendations/u1?N=5", 422, "invalid"),
        ("GET", "/v1/recommendations/" + "u" * 129, 422, "invalid"),
        ("GET", "/recommend/a%00b", 422, "invalid"),
        ("GET", "/recommend/u1?n=5", 422, "invalid"),
    ],
)
async def test_bad_paths_are_4xx(
    client: Client, context: ReplicaContext, method: str, path: str, status: int, name: str | None
) -> None:
    """Routes, methods, query fields and ids are checked, and nothing is recorded."""
    problem = await body(client, method, path, status)
    assert problem is None if name is None else problem["type"] == f"/problems/{name}"
    assert recorded_events(context) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "identity"},
    ],
)
async def test_encoded_or_other_bodies_are_415(client: Client, headers: dict[str, str]) -> None:
    """No body is inflated, so a compression bomb is harmless."""
    problem = await body(client, "POST", "/v1/events", 415, data=b"x", headers=headers)
    assert problem["type"] == "/problems/unsupported-body"


async def test_a_body_that_never_ends_times_out(context: ReplicaContext, free_port: Callable[[], int]) -> None:
    """408, and the connection is closed."""
    quick = replace(context, config=replace(context.config, server=replace(context.config.server, body_timeout_s=0.1)))
    port = free_port()
    listener = Listener(build_app(quick), "127.0.0.1", port, quick.config.server)
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await listener.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"/problems/timeout" in answer
    context.producer.close()


async def test_a_full_spool_refuses_events_with_retry_after(client: Client, context: ReplicaContext) -> None:
    """Lists are still answered; events are refused, all of them."""
    context.producer.close()
    rows = {"events": [{"type": "click", "user_id": "u", "item_id": "i"}]}
    async with client.post("/v1/events", json=rows) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert (await response.json(content_type=None))["type"] == "/problems/unavailable"
    await body(client, "GET", "/v1/recommendations/u1", 200)


async def test_without_a_model_lists_are_503(context: ReplicaContext) -> None:
    """And the replica is not ready."""
    empty = replace(context, store=ModelStore())
    async with TestClient(TestServer(build_app(empty))) as client:
        for path in ("/v1/recommendations/u1", "/v1/model", "/readyz", "/v1/popular"):
            assert (await body(client, "GET", path, 503))["type"] == "/problems/unavailable"
        # nginx asks another replica at a 504, and at no 503, which may be overload.
        balanced = {"X-Recollect-Balancer": "1"}
        assert (await body(client, "GET", "/v1/popular", 504, headers=balanced))["status"] == 504
        await body(client, "GET", "/readyz", 503, headers=balanced)
        async with client.get("/healthz") as response:
            assert response.status == 200
    context.producer.close()
