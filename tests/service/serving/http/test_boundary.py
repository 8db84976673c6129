"""The boundary around every route: API keys, internal errors, headers and counters."""

import base64
import hashlib
import re
import time
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from service.models.snapshot import ModelSnapshot
from service.security.api_key import new_key
from service.security.gate import Gate
from service.security.keyring import Keyring
from service.serving.app import ROUTES, build_app
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, body, recorded_events


async def test_with_keys_every_route_requires_its_scope(client: Client, context: ReplicaContext) -> None:
    """401 without a key, 403 without the scope, both as problems and with nothing recorded."""
    text, record = new_key(("recommend",), now_s=time.time())
    keyed = replace(context, gate=Gate(Keyring([record])))
    async with TestClient(TestServer(build_app(keyed))) as other:
        for route in ROUTES:
            path = re.sub(r"\{\w+\}", "u1", route.path)
            async with other.request(route.method, path, json={}) as response:
                assert (response.status == 401) is (route.scope is not None), path
                if response.status == 401:
                    assert response.content_type == "application/problem+json"
                    assert response.headers["WWW-Authenticate"] == 'Bearer realm="recollect"'
                    assert (await response.json(content_type=None))["type"] == "/problems/unauthorized"
            async with other.request(route.method, path, json={}, headers={"X-API-Key": text}) as response:
                assert (response.status == 403) is (route.scope not in {None, "recommend"}), path
                if response.status == 403:
                    assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]
                    assert (await response.json(content_type=None))["type"] == "/problems/forbidden"
        assert {event["class"] for event in recorded_events(context)} == {"served"}
        await body(other, "GET", "/v1/recommendations/u1", 200, headers={"Authorization": f"Bearer {text}"})


async def test_draining_closes_connections_and_refuses_readiness(client: Client, context: ReplicaContext) -> None:
    """Requests are still answered."""
    context.state.draining = True
    async with client.get("/v1/recommendations/u1") as response:
        assert response.status == 200
        assert response.headers["Connection"] == "close"
    await body(client, "GET", "/readyz", 503)


async def test_an_internal_error_is_a_500_without_detail(
    client: Client, context: ReplicaContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and logged with its traceback and without data of the caller."""

    quoting = "secret inside, of u1"

    def broken() -> ModelSnapshot:
        raise ZeroDivisionError(quoting)

    monkeypatch.setattr(context.store, "current", broken)
    with capture_logs() as lines:
        problem = await body(client, "GET", "/v1/recommendations/u1", 500)
    assert problem["type"] == "/problems/internal"
    assert "secret" not in str(problem)
    (line,) = lines
    assert line["route"] == "/v1/recommendations/{user_id}"
    assert "in broken" in line["exception"]
    assert line["exception"].endswith("ZeroDivisionError")
    assert not {"secret", "u1"} & set(re.findall(r"\w+", str(line)))
    assert b"recollect_handler_faults_total 1.0" in generate_latest(context.metrics.registry)


async def test_answers_are_not_cached_and_pages_are_confined(client: Client) -> None:
    """Errors included; the page at /docs runs only its own script, and in no frame."""
    answers = [
        ("GET", "/recommend/u1"),
        ("GET", "/v1/recommendations/u1"),
        ("GET", "/v1/recommendations/u1?n=0"),
        ("POST", "/v1/recommendations"),
        ("POST", "/v1/events"),
        ("DELETE", "/v1/users/u1"),
        ("GET", "/v1/model"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/nothing"),
    ]
    for method, path in answers:
        async with client.request(method, path, json={} if method == "POST" else None) as response:
            headers = response.headers
            assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff"), path
    for path in ("/docs", "/openapi.json"):
        async with client.get(path) as response:
            headers = response.headers
            assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-cache", "nosniff")
    async with client.get("/docs") as response:
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        script = re.search(r"<script>(.*?)</script>", await response.text(), re.DOTALL)
        assert script is not None
        digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
        assert policy["script-src"] == f"'sha256-{digest}'"
        assert response.headers["X-Frame-Options"] == "DENY"


async def test_json_ends_with_a_line_feed(client: Client) -> None:
    """A terminal's prompt begins a new line."""
    for path in ("/v1/recommendations/u1", "/v1/model", "/openapi.json", "/nothing", "/v1/popular?n=0"):
        async with client.get(path) as response:
            assert (await response.read()).endswith(b"}\n")
    async with client.post("/v1/events", json={}) as response:
        assert (await response.read()).endswith(b"}\n")


async def test_requests_are_counted_by_route_and_status(client: Client, context: ReplicaContext) -> None:
    """The label is the route's pattern and never an id, so that cardinality is bounded."""
    for user in ("u1", "u2", "u3"):
        await body(client, "GET", f"/v1/recommendations/{user}", 200)
    await body(client, "GET", "/v1/recommendations/u1?n=0", 422)
    text = generate_latest(context.metrics.registry).decode()
    assert 'recollect_requests_total{route="/v1/recommendations/{user_id}",status="200"} 3.0' in text
    assert 'recollect_requests_total{route="/v1/recommendations/{user_id}",status="422"} 1.0' in text
    assert "u2" not in text
