"""The HTTP API as callers meet it, on the real application with an in-memory event stream."""

import base64
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from service.config import EventsConfig
from service.models.erased_users import without_users
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.security.api_key import new_key
from service.security.gate import Gate
from service.security.keyring import Keyring
from service.serving.app import ROUTES, build_app
from service.serving.context import ReplicaContext
from service.serving.store import ModelStore
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser
from tests.support.replica_app import Client, body, held


async def test_a_known_user_gets_n_unseen_items(client: Client, context: ReplicaContext) -> None:
    """Exactly n items, best first, none of them seen, with the fields of the contract."""
    answer = await body(client, "GET", "/v1/recommendations/u1?n=7", 200)
    snapshot = context.store.current()
    ids = [item["item_id"] for item in answer["items"]]
    seen = {snapshot.items.id_of[row] for row in snapshot.seen_rows(1)}
    assert len(ids) == len(set(ids)) == 7
    assert not seen & set(ids)
    assert [item["score"] for item in answer["items"]] == sorted(
        (item["score"] for item in answer["items"]), reverse=True
    )
    assert {item["source"] for item in answer["items"]} == {"personal"}
    assert answer["model"] == snapshot.version
    assert answer["user_id"] == "u1"
    assert answer["degraded"] is None
    assert answer["shortfall"] is None
    assert answer["freshness"] == {"as_of": "2026-01-01T00:00:00.000Z"}


async def test_the_plain_route_is_the_same_list_on_one_line(client: Client) -> None:
    """Up to 20 ids, comma separated, with the recommendation's id in a header."""
    async with client.get("/recommend/u1") as response:
        text = await response.text()
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert re.fullmatch(r"[0-9a-f-]{36}", response.headers["X-Recommendation-Id"])
    answer = await body(client, "GET", "/v1/recommendations/u1?n=20", 200)
    assert text == ",".join(item["item_id"] for item in answer["items"]) + "\n"


async def test_an_unknown_user_gets_the_popular_items(client: Client) -> None:
    """Nobody is refused; the list says where it came from."""
    unknown = await body(client, "GET", "/v1/recommendations/nobody%2Fknows%20%E2%9C%93?n=5", 200)
    popular = await body(client, "GET", "/v1/popular?n=5", 200)
    assert unknown["user_id"] == "nobody/knows ✓"
    assert unknown["items"] == popular["items"]
    assert {item["source"] for item in unknown["items"]} == {"popular"}


async def test_offset_continues_where_the_first_page_ended(client: Client) -> None:
    """Two pages are one list."""
    whole = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u2", "n": 12})
    second = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u2", "n": 5, "offset": 7})
    assert second["items"] == whole["items"][7:]


async def test_exclude_and_include_apply_before_the_top_n(client: Client) -> None:
    """What is excluded is replaced by the next best; what is included is all there is."""
    whole = (await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u2", "n": 12}))["items"]
    exclude = [whole[0]["item_id"], whole[3]["item_id"], "never heard of"]
    rest = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u2", "n": 10, "exclude": exclude})
    assert rest["items"] == [item for item in whole if item["item_id"] not in exclude]
    include = [whole[5]["item_id"], whole[2]["item_id"], whole[2]["item_id"], "never heard of"]
    only = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u2", "n": 10, "include": include})
    assert only["items"] == [whole[2], whole[5]]
    assert only["shortfall"] == {
        "requested": 10,
        "returned": 2,
        "reason": "The catalogue holds no more items for this request.",
    }


async def test_more_than_the_catalogue_holds_is_a_stated_shortfall(client: Client, context: ReplicaContext) -> None:
    """All unseen items, and the sentence why they are fewer."""
    answer = await body(client, "GET", "/v1/recommendations/u1?n=500", 200)
    unseen = 60 - context.store.current().seen_rows(1).size
    assert (answer["shortfall"]["requested"], answer["shortfall"]["returned"]) == (500, unseen)
    assert len(answer["items"]) == unseen


async def test_similar_items_name_their_source_and_leave_the_item_out(client: Client) -> None:
    """Neighbours of a known item; an unknown one is 404."""
    answer = await body(client, "GET", "/v1/items/i4/similar?n=3", 200)
    assert [item["source"] for item in answer["items"]] == ["similar"] * 3
    assert "i4" not in {item["item_id"] for item in answer["items"]}
    problem = await body(client, "GET", "/v1/items/none/similar", 404)
    assert problem["type"] == "/problems/not-found"


async def test_every_list_becomes_a_served_event(client: Client, context: ReplicaContext) -> None:
    """What the caller saw is what the event holds, under the balancer's request id."""
    headers = {"X-Request-Id": "0123456789abcdef0123456789abcdef"}
    answer = await body(client, "GET", "/v1/recommendations/u1?n=3", 200, headers=headers)
    await body(client, "POST", "/v1/recommendations", 200, json={"include": ["i1", "i2"], "exclude": ["i1"], "n": 1})
    await body(client, "GET", "/v1/items/i4/similar?n=2", 200)
    first, second, third = held(context)
    assert first["class"] == "served"
    assert first["request_id"] == headers["X-Request-Id"]
    assert first["recommendation_id"] == answer["recommendation_id"]
    assert (first["user_id"], first["model"], first["candidate_set"]) == ("u1", answer["model"], "catalogue")
    assert [(i["item_id"], i["score"], i["position"], i["propensity"]) for i in first["items"]] == [
        (item["item_id"], item["score"], position, 1.0) for position, item in enumerate(answer["items"])
    ]
    assert re.fullmatch(r"include:2:[0-9a-f]{8};exclude:1:[0-9a-f]{8}", second["candidate_set"])
    assert second["user_id"] is None
    assert third["candidate_set"] == "similar:i4"
    assert [first["seq"], second["seq"], third["seq"]] == [1, 2, 3]


async def test_events_are_taken_with_their_ids_and_times(client: Client, context: ReplicaContext) -> None:
    """202 with the count; a missing event_id is made from the Idempotency-Key and the row; times become UTC."""
    rows = [
        {"type": "rating", "user_id": "u1", "item_id": "i1", "value": 4, "ts": "2026-11-21T02:02:03.4567+01:00"},
        {"event_id": "mine-0001", "type": "click", "user_id": "new", "item_id": "unheard", "position": 3},
        {"type": "rating", "user_id": "u1", "item_id": "i1", "value": 99},
    ]
    headers = {"Idempotency-Key": "key_0123456789"}
    answer = await body(client, "POST", "/v1/events", 202, json={"events": rows}, headers=headers)
    assert answer == {"accepted": 3, "durability": "disk"}
    first, second, third = held(context)
    assert (first["event_id"], second["event_id"]) == ("key_0123456789-0", "mine-0001")
    assert first["client_time"] == "2026-11-21T01:02:03.456Z"
    assert (first["type"], first["value"], second["position"], second["value"]) == ("rating", 4.0, 3, None)
    assert (first["marks"], second["marks"]) == ([], ["unknown_item"])
    assert (third["marks"], third["value"]) == (["out_of_scale"], 99.0)


async def test_a_clock_that_is_off_is_marked_and_nobody_is_refused(client: Client, context: ReplicaContext) -> None:
    """By the settings' measure; without a model no item is unknown."""
    rows = [
        {"type": "view", "user_id": "u1", "item_id": "i1", "ts": text}
        for text in (rfc3339_ms(time.time()), "2001-01-01T00:00:00Z", "2101-01-01T00:00:00Z")
    ]
    await body(client, "POST", "/v1/events", 202, json={"events": rows})
    assert [event["marks"] for event in held(context)] == [[], ["clock_skew"], ["clock_skew"]]
    patient = replace(
        context,
        config=replace(context.config, events=EventsConfig(clock_skew_ahead_s=1e12, clock_skew_behind_s=1e12)),
        store=ModelStore(),
    )
    async with TestClient(TestServer(build_app(patient))) as other:
        rows[0]["item_id"] = "unheard"
        await body(other, "POST", "/v1/events", 202, json={"events": rows})
    assert [event["marks"] for event in held(context)][3:] == [[], [], []]


async def test_a_key_stands_for_one_body(client: Client, context: ReplicaContext) -> None:
    """The same again is 202 again; another is 422; what was invalid or refused may be corrected under its key."""
    headers = {"Idempotency-Key": "key_0123456789"}
    first = {"events": [{"type": "view", "user_id": "u1", "item_id": "i1"}]}
    other = {"events": [{"type": "view", "user_id": "u1", "item_id": "i2"}]}
    await body(client, "POST", "/v1/events", 422, json={"events": []}, headers=headers)
    for _ in range(2):
        await body(client, "POST", "/v1/events", 202, json=first, headers=headers)
    problem = await body(client, "POST", "/v1/events", 422, json=other, headers=headers)
    assert problem["detail"].startswith("Idempotency-Key: was sent with another body")
    assert [event["event_id"] for event in held(context)] == ["key_0123456789-0"] * 2
    # Only what the balancer made of its own id of the request is not a client's: another one is never sent again.
    for status, events in ((202, first), (422, other)):
        await body(client, "POST", "/v1/events", status, json=events, headers={"Idempotency-Key": "ngx-0123456789"})
    made = {"Idempotency-Key": "ngx-0123456789", "X-Request-Id": "0123456789"}
    for events in (first, other):
        await body(client, "POST", "/v1/events", 202, json=events, headers=made)
    context.producer.close()
    await body(client, "POST", "/v1/events", 503, json=first, headers={"Idempotency-Key": "key_refused"})
    await body(client, "POST", "/v1/events", 503, json=other, headers={"Idempotency-Key": "key_refused"})


async def test_forgetting_a_user_is_recorded_and_true_at_once(client: Client, context: ReplicaContext) -> None:
    """202 with a receipt; the user's next list is that of an unknown one, and a later model may know them again."""
    await body(client, "GET", "/v1/recommendations/u1", 200)
    receipt = await body(client, "DELETE", "/v1/users/u1", 202)
    assert set(receipt) == {"erase_id", "user_id", "requested_at", "durability"}
    assert (receipt["user_id"], receipt["durability"]) == ("u1", "disk")
    order = held(context)[1]
    assert (order["class"], order["kind"], order["user_id"]) == ("system", "erase", "u1")
    assert (order["event_id"], order["received_at"]) == (receipt["erase_id"], receipt["requested_at"])
    popular = (await body(client, "GET", "/v1/popular", 200))["items"]
    assert (await body(client, "GET", "/v1/recommendations/u1", 200))["items"] == popular
    await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "include": ["i1", "i2"]})
    assert {item["source"] for item in held(context)[-1]["items"]} == {"popular"}
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


async def test_an_erase_is_accounted_for_before_it_is_ordered(client: Client, context: ReplicaContext) -> None:
    """By its receipt, never by the user; what cannot be entered in the security log is not done."""
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
    assert [event["kind"] for event in held(context)] == ["erase"]


async def test_with_keys_every_route_asks_for_its_scope(client: Client, context: ReplicaContext) -> None:
    """401 without a key and 403 with another's scope, as problems, with nothing recorded; then as ever."""
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
                assert (response.status == 403) is (route.scope in {"events", "erase"}), path
                if response.status == 403:
                    assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]
                    assert (await response.json(content_type=None))["type"] == "/problems/forbidden"
        assert {event["class"] for event in held(context)} == {"served"}
        await body(other, "GET", "/v1/recommendations/u1", 200, headers={"Authorization": f"Bearer {text}"})


async def test_an_erase_that_cannot_be_recorded_is_refused_and_changes_nothing(
    client: Client, context: ReplicaContext
) -> None:
    """503 with a time to try again, as for events; a user whom nobody knows is no exception to anything."""
    await body(client, "DELETE", "/v1/users/nobody%2Fknows%20%E2%9C%93", 202)
    assert held(context)[-1]["user_id"] == "nobody/knows ✓"
    assert not context.store.erased
    context.producer.close()
    async with client.delete("/v1/users/u1") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    answer = await body(client, "GET", "/v1/recommendations/u1", 200)
    assert {item["source"] for item in answer["items"]} == {"personal"}


async def test_with_a_key_telemetry_knows_pseudonyms_and_callers_their_own_ids(
    client: Client, context: ReplicaContext
) -> None:
    """In lists, events and erases alike; the answers are those of before."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    plain = await body(client, "GET", "/v1/recommendations/u1", 200)
    async with TestClient(TestServer(build_app(replace(context, pseudonyms=pseudonyms)))) as other:
        hidden = await body(other, "GET", "/v1/recommendations/u1", 200)
        assert (hidden["user_id"], hidden["items"]) == ("u1", plain["items"])
        rows = [{"type": "view", "user_id": "u1", "item_id": "i1"}]
        await body(other, "POST", "/v1/events", 202, json={"events": rows})
        assert (await body(other, "DELETE", "/v1/users/u1", 202))["user_id"] == "u1"
        await body(other, "GET", "/v1/popular", 200)
    assert [event["user_id"] for event in held(context)] == ["u1", *[pseudonyms.pseudonym("u1")] * 3, None]


async def test_what_nothing_personal_put_into_a_list_is_popular(
    client: Client, context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """For a user whose factors say nothing: the most popular first where scores are equal."""
    model = make_snapshot(n_items=60)
    factors = model.user_factors.copy()
    factors[1] = 0
    context.store.swap(replace(model, user_factors=factors, item_bias=np.zeros_like(model.item_bias)))
    for path in ("/v1/recommendations/u1", "/v1/recommendations/u2"):
        answer = await body(client, "GET", path, 200)
        sources = {item["source"] for item in answer["items"]}
        assert sources == ({"popular"} if path.endswith("u1") else {"personal"})
    answer = await body(client, "GET", "/v1/recommendations/u1", 200)
    seen = set(model.seen_rows(1).tolist())
    best = [model.items.id_of[row] for row in model.popular_rows.tolist() if row not in seen]
    assert [item["item_id"] for item in answer["items"]] == best[:10]


async def test_a_model_of_pseudonyms_knows_its_users_and_forgets_them(
    client: Client, context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """Trained on archived events, it is asked with callers' ids all the same."""
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


async def test_draining_closes_connections_and_refuses_readiness(client: Client, context: ReplicaContext) -> None:
    """Requests are still answered, so that none is lost."""
    context.state.draining = True
    async with client.get("/v1/recommendations/u1") as response:
        assert response.status == 200
        assert response.headers["Connection"] == "close"
    await body(client, "GET", "/readyz", 503)


async def test_a_degraded_list_is_marked_in_header_body_and_event(client: Client, context: ReplicaContext) -> None:
    """The degradation level is the same in all three places."""
    context.state.degraded = "stale"
    async with client.get("/v1/recommendations/u1") as response:
        assert response.headers["X-Degraded"] == "stale"
        assert (await response.json())["degraded"] == "stale"
    assert held(context)[0]["degraded"] == "stale"


async def test_a_fault_of_ours_is_a_plain_500(
    client: Client, context: ReplicaContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No detail of the inside leaves; the fault is counted, and the log has its place and nothing of the caller's."""

    quoting = "secret inside, of u1"

    def broken() -> ModelSnapshot:
        raise ZeroDivisionError(quoting)

    monkeypatch.setattr(context.store, "current", broken)
    with capture_logs() as told:
        problem = await body(client, "GET", "/v1/recommendations/u1", 500)
    assert problem["type"] == "/problems/internal"
    assert "secret" not in str(problem)
    (line,) = told
    assert line["route"] == "/v1/recommendations/{user_id}"
    assert "in broken" in line["exception"]
    assert line["exception"].endswith("ZeroDivisionError")
    assert not {"secret", "u1"} & set(re.findall(r"\w+", str(line)))
    assert b"recollect_handler_faults_total 1.0" in generate_latest(context.metrics.registry)


@pytest.mark.parametrize("path", sorted(route.path for route in ROUTES if route.method == "GET"))
async def test_head_is_get_without_its_body(client: Client, context: ReplicaContext, path: str) -> None:
    """And without what a list leaves behind: nothing was shown, so nothing was served and no list has an id."""
    path = path.replace("{user_id}", "u1").replace("{item_id}", "i1")
    queried = {"/v1/items/similar": "?item_id=i1", "/recommend": "?user_id=u1", "/v1/recommendations": "?user_id=u1"}
    path += queried.get(path, "")
    async with client.head(path) as head:
        assert (head.status, await head.read()) == (200, b"")
    assert held(context) == []
    async with client.get(path) as got:
        wanted = {name for name in got.headers if name != "X-Recommendation-Id"}
        assert {name: head.headers[name] for name in wanted - {"Date"}} == {
            name: got.headers[name] for name in wanted - {"Date"}
        }
    assert "X-Recommendation-Id" not in head.headers
    async with client.head("/v1/popular?n=0") as refused:
        assert refused.status == 422


async def test_what_is_about_one_user_is_kept_by_no_cache_and_taken_for_no_page(client: Client) -> None:
    """Whatever the answer, an error too; the page itself runs its own script only, and in no frame."""
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
    """So that a terminal's prompt begins a line of its own."""
    for path in ("/v1/recommendations/u1", "/v1/model", "/openapi.json", "/nothing", "/v1/popular?n=0"):
        async with client.get(path) as response:
            assert (await response.read()).endswith(b"}\n")
    async with client.post("/v1/events", json={}) as response:
        assert (await response.read()).endswith(b"}\n")


async def test_the_model_route_shows_what_is_served(client: Client, context: ReplicaContext) -> None:
    """Version, algorithm, measures and the data's fingerprint."""
    shown = await body(client, "GET", "/v1/model", 200)
    assert shown["version"] == context.store.version
    assert (shown["algorithm"], shown["measures"], shown["data"]) == ("svd", {"rmse": 0.9}, {"fingerprint": "sha256:0"})


async def test_requests_are_counted_by_route_and_status(client: Client, context: ReplicaContext) -> None:
    """The route is the pattern, never the id: cardinality stays bounded."""
    for user in ("u1", "u2", "u3"):
        await body(client, "GET", f"/v1/recommendations/{user}", 200)
    await body(client, "GET", "/v1/recommendations/u1?n=0", 422)
    text = generate_latest(context.metrics.registry).decode()
    assert 'recollect_requests_total{route="/v1/recommendations/{user_id}",status="200"} 3.0' in text
    assert 'recollect_requests_total{route="/v1/recommendations/{user_id}",status="422"} 1.0' in text
    assert "u2" not in text
