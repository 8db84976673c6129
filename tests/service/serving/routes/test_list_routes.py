"""The routes of lists and of the model, on the real application with an in-memory stream."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from service.models.fold_in.settings import FoldIn
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.snapshot import ModelSnapshot
from service.serving.app import ROUTES
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, body, recorded_events


async def test_a_known_user_gets_n_unseen_items(client: Client, context: ReplicaContext) -> None:
    """Exactly n items, best first, without seen ones, with every field of the API."""
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
    assert answer["freshness"] == {"as_of": "2026-01-01T00:00:00.000Z", "events_applied": 0}


async def test_the_plain_route_is_the_same_list_on_one_line(client: Client) -> None:
    """Up to 20 comma-separated ids, with the id of the list in a header."""
    async with client.get("/recommend/u1") as response:
        text = await response.text()
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert re.fullmatch(r"[0-9a-f-]{36}", response.headers["X-Recommendation-Id"])
    answer = await body(client, "GET", "/v1/recommendations/u1?n=20", 200)
    assert text == ",".join(item["item_id"] for item in answer["items"]) + "\n"


async def test_an_unknown_user_gets_the_popular_items(client: Client) -> None:
    """The source of each item is `popular`."""
    unknown = await body(client, "GET", "/v1/recommendations/nobody%2Fknows%20%E2%9C%93?n=5", 200)
    popular = await body(client, "GET", "/v1/popular?n=5", 200)
    assert unknown["user_id"] == "nobody/knows ✓"
    assert unknown["items"] == popular["items"]
    assert {item["source"] for item in unknown["items"]} == {"popular"}


async def test_lists_show_the_fields_that_are_asked_for(client: Client, context: ReplicaContext) -> None:
    """Titles and attributes from the model's catalogue, null for what an item lacks, on every route of lists."""
    snapshot = context.store.current()
    records = [ItemRecord(f"Title {row}", {"genres": ["Drama"]} if row else {}) for row in range(len(snapshot.items))]
    context.store.swap(replace(snapshot, item_records=ItemRecords.of(records)))
    first = snapshot.items.id_of[1]
    for path in ("recommendations/u1", "recommendations?user_id=u1", "popular", f"items/{quote(first)}/similar"):
        joint = "&" if "?" in path else "?"
        plain = await body(client, "GET", f"/v1/{path}{joint}n=8", 200)
        answer = await body(client, "GET", f"/v1/{path}{joint}n=8&fields=title,genres", 200)
        assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in plain["items"]]
        for item, bare in zip(answer["items"], plain["items"], strict=True):
            row = snapshot.items.row_of[item["item_id"]]
            assert item.pop("fields") == {"title": f"Title {row}", "genres": ["Drama"] if row else None}
            assert item == bare
    posted = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "n": 1, "fields": ["title"]})
    assert list(posted["items"][0]["fields"]) == ["title"]


@pytest.mark.parametrize(
    "names", ["", "title,", "a b", "1st", ",".join("abcdefghijklmnopqrstuvwxyzabcdefg"), "a&fields=b"]
)
async def test_bad_names_of_fields_are_refused(client: Client, names: str) -> None:
    """Malformed, too many, or given twice."""
    problem = await body(client, "GET", f"/v1/recommendations/u1?fields={names}", 422)
    assert problem["errors"][0]["field"] == "fields"


async def test_offset_continues_after_the_first_page(client: Client) -> None:
    """Two pages make one list."""
    whole = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u2", "n": 12})
    second = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u2", "n": 5, "offset": 7})
    assert second["items"] == whole["items"][7:]


@pytest.fixture
def films(context: ReplicaContext) -> list[ItemRecord]:
    """Attributes for the items of the served model."""
    snapshot = context.store.current()
    records = [
        ItemRecord(
            f"Title {row}", {"genres": ["Comedy", "Drama"][row % 2 :], "year": 1980 + row, "dubbed": row % 3 == 0}
        )
        for row in range(len(snapshot.items))
    ]
    context.store.swap(replace(snapshot, item_records=ItemRecords.of(records)))
    return records


async def test_pages_make_one_list_on_every_route(client: Client) -> None:
    """The tokens of GET continue a list to its end, where there is none; so do those of POST."""
    for path in ("recommendations/u1", "recommendations?user_id=u1", "popular", "items/i4/similar"):
        joint = "&" if "?" in path else "?"
        whole = await body(client, "GET", f"/v1/{path}{joint}n=500", 200)
        assert whole["next_page_token"] is None
        items: list[Any] = []
        token: str | None = ""
        while token is not None:
            query = f"{joint}n=17&page_token={token}" if token else f"{joint}n=17"
            answer = await body(client, "GET", f"/v1/{path}{query}", 200)
            items += answer["items"]
            token = answer["next_page_token"]
        assert items == whole["items"]
        offset = await body(client, "GET", f"/v1/{path}{joint}n=5&offset=20", 200)
        assert offset["items"] == items[20:25]
    first = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "n": 9})
    more = {"user_id": "u1", "n": 9, "page_token": first["next_page_token"]}
    second = await body(client, "POST", "/v1/recommendations", 200, json=more)
    assert [item["item_id"] for item in first["items"] + second["items"]] == [
        item["item_id"] for item in (await body(client, "GET", "/v1/recommendations/u1?n=18", 200))["items"]
    ]
    problem = await body(client, "POST", "/v1/recommendations", 422, json={**more, "user_id": "u2"})
    assert problem["errors"][0]["field"] == "page_token"


@pytest.mark.usefixtures("films")
async def test_a_filter_leaves_the_items_that_match(client: Client, context: ReplicaContext) -> None:
    """On GET and POST, for every kind of list; the shortfall says that the filter ran out."""
    text = 'genre == "Comedy" and year >= 2000 and not dubbed'
    row_of = context.store.current().items.row_of
    for path in ("recommendations/u1", "popular", "items/i4/similar"):
        whole = await body(client, "GET", f"/v1/{path}?n=500", 200)
        answer = await body(client, "GET", f"/v1/{path}?n=500&filter={quote(text)}", 200)
        matching = [
            item for item in whole["items"] if (row := row_of[item["item_id"]]) % 2 == 0 and row >= 20 and row % 3
        ]
        assert answer["items"] == matching
        short = await body(client, "GET", f"/v1/{path}?n=40&filter={quote(text)}", 200)
        assert short["shortfall"] == {
            "requested": 40,
            "returned": len(matching),
            "code": "filter",
            "reason": "No other item matches the filter.",
        }
    posted = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "n": 3, "filter": text})
    assert len(posted["items"]) == 3


@pytest.mark.usefixtures("films")
@pytest.mark.parametrize(
    ("text", "column", "words"),
    [("genre = 'a'", 7, "'=='"), ("yeer > 1", 1, "did you mean year?"), ("dubbed > 1", 1, "holds booleans")],
)
async def test_a_bad_filter_is_refused_with_its_column(client: Client, text: str, column: int, words: str) -> None:
    """In the query and in the body, boosts included."""
    got = await body(client, "GET", f"/v1/popular?filter={quote(text)}", 422)
    boosts = [{"filter": "dubbed", "factor": 2}, {"filter": text, "factor": 2}]
    posted = await body(client, "POST", "/v1/recommendations", 422, json={"boosts": boosts})
    for problem, field in ((got, "filter"), (posted, "boosts[1].filter")):
        (error,) = problem["errors"]
        assert (error["field"], error["column"]) == (field, column)
        assert words in error["message"]


@pytest.mark.usefixtures("films")
async def test_boosts_and_pins_change_the_order(client: Client, context: ReplicaContext) -> None:
    """A boosted item rises, a pinned one has its place and its source; the served event holds the request."""
    plain = (await body(client, "GET", "/v1/recommendations/u1?n=500", 200))["items"]
    ids = [item["item_id"] for item in plain]
    wanted = {
        "user_id": "u1",
        "n": 4,
        "boosts": [{"filter": "dubbed", "factor": 100}],
        "pins": [{"item_id": ids[-1], "position": 2}, {"item_id": "unknown", "position": 0}],
    }
    answer = await body(client, "POST", "/v1/recommendations", 200, json=wanted)
    assert [item["source"] for item in answer["items"]] == ["personal", "personal", "pinned", "personal"]
    assert answer["items"][2]["item_id"] == ids[-1]
    row_of = context.store.current().items.row_of
    assert all(row_of[item["item_id"]] % 3 == 0 for item in answer["items"] if item["source"] == "personal")
    _, event = recorded_events(context)
    assert event["request"] == {name: value for name, value in wanted.items() if name != "user_id"}
    assert [item["source"] for item in event["items"]] == [item["source"] for item in answer["items"]]
    for bad in ([{"item_id": "a", "position": 1}, {"item_id": "b", "position": 1}], [{"item_id": "a", "position": -1}]):
        problem = await body(client, "POST", "/v1/recommendations", 422, json={"pins": bad})
        assert problem["errors"][0]["field"].startswith("pins")


async def test_a_session_and_seeds_make_lists(client: Client, context: ReplicaContext) -> None:
    """Ids or interactions, with and without a user; several seeds; both are in the served event."""
    model = context.store.current()
    context.store.swap(replace(model, fold_in=FoldIn("decayed_sum")))
    session = ["i3", {"item_id": "i4", "type": "rating", "value": 5.0}, "unknown"]
    visitor = await body(client, "POST", "/v1/recommendations", 200, json={"session": session, "n": 5})
    assert {item["source"] for item in visitor["items"]} == {"session"}
    assert not {"i3", "i4"} & {item["item_id"] for item in visitor["items"]}
    user = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "session": session, "n": 5})
    plain = await body(client, "GET", "/v1/recommendations/u1?n=5", 200)
    assert user["items"] != plain["items"]
    near = await body(client, "POST", "/v1/recommendations", 200, json={"seeds": ["i3", "i4", "unknown"], "n": 60})
    assert {item["source"] for item in near["items"]} == {"similar"}
    assert not {"i3", "i4"} & {item["item_id"] for item in near["items"]}
    one = await body(client, "POST", "/v1/recommendations", 200, json={"seeds": ["i4"], "n": 6})
    assert one["items"] == (await body(client, "GET", "/v1/items/i4/similar?n=6", 200))["items"]
    first, *_, last = recorded_events(context)
    view = {"item_id": "i3", "type": "view", "value": None}
    assert first["request"]["session"] == [view, session[1], view | {"item_id": "unknown"}]
    assert last["candidate_set"] == "similar:i4"
    bad = {"session": ["i1", {"item_id": "i2", "type": "rating"}]}
    problem = await body(client, "POST", "/v1/recommendations", 422, json=bad)
    assert problem["errors"] == [{"field": "session[1]", "message": "a rating needs a value"}]
    both = await body(client, "POST", "/v1/recommendations", 422, json={"session": ["i1"], "seeds": ["i2"]})
    assert "together" in both["detail"]


async def test_a_list_tells_where_its_scores_come_from(client: Client, context: ReplicaContext) -> None:
    """Items of the history with their fields and shares, in the query and in the body; null where there is none."""
    model = context.store.current()
    records = ItemRecords.of([ItemRecord(f"Title {row}", {}) for row in range(len(model.items))])
    context.store.swap(replace(model, fold_in=FoldIn("decayed_sum"), item_records=records))
    answer = await body(client, "GET", "/v1/recommendations/u1?n=5&explain=3&fields=title", 200)
    history = {model.items.id_of[row] for row in model.seen_rows(1)}
    for item in answer["items"]:
        because = item["because"]
        assert {one["item_id"] for one in because["items"]} <= history
        assert all(
            one["fields"] == {"title": f"Title {model.items.row_of[one['item_id']]}"} for one in because["items"]
        )
        total = sum(one["share"] for one in because["items"]) + because["others"] + because["base"]
        assert total == pytest.approx(item["score"], abs=1e-5)
    plain = await body(client, "GET", "/v1/recommendations/u1?n=5&fields=title", 200)
    assert plain["items"] == [{name: item[name] for name in item if name != "because"} for item in answer["items"]]
    popular = await body(client, "POST", "/v1/recommendations", 200, json={"n": 2, "explain": 3})
    assert [item["because"] for item in popular["items"]] == [None, None]
    assert (await body(client, "GET", "/v1/recommendations/u1?explain=21", 422))["errors"][0]["field"] == "explain"


async def test_several_lists_come_in_one_answer(client: Client, context: ReplicaContext) -> None:
    """In the order of the requests, each as by itself and each recorded; all or none."""
    asked: list[dict[str, Any]] = [{"user_id": f"u{row % 5}", "n": 3 + row % 4} for row in range(40)]
    asked[7] = {"seeds": ["i4"], "n": 2}
    asked[9] = {"user_id": "u1", "include": ["i1", "i2"]}
    answer = await body(client, "POST", "/v1/recommendations/batch", 200, json={"requests": asked})
    events = recorded_events(context)
    assert [one["recommendation_id"] for one in answer["lists"]] == [event["recommendation_id"] for event in events]
    assert [event["request"]["n"] for event in events] == [one.get("n", 10) for one in asked]
    for one, wanted in zip(answer["lists"], asked, strict=True):
        alone = await body(client, "POST", "/v1/recommendations", 200, json=wanted)
        assert one["items"] == alone["items"]
    n_events = len(recorded_events(context))
    bad = [asked[0], {"filter": "x =="}]
    problem = await body(client, "POST", "/v1/recommendations/batch", 422, json={"requests": bad})
    assert problem["errors"] == [
        {"field": "requests[1].filter", "message": "ends where a value is needed (column 5)", "column": 5}
    ]
    assert problem["detail"].startswith("requests[1].filter: ")
    await body(client, "POST", "/v1/recommendations/batch", 422, json={"requests": [{}] * 257})
    assert len(recorded_events(context)) == n_events
    # A user of this name has the route of all users.
    assert (await body(client, "GET", "/v1/recommendations/batch?n=2", 200))["user_id"] == "batch"
    async with client.delete("/v1/recommendations/batch") as refused:
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, POST")
    async with client.delete("/v1/recommendations/u1") as refused:
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


async def test_exclude_and_include_apply_before_the_top_n(client: Client) -> None:
    """The next best replace excluded items; included items are the only candidates."""
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
        "code": "include",
        "reason": "The request includes no other item.",
    }


async def test_too_few_items_are_a_shortfall(client: Client, context: ReplicaContext) -> None:
    """The list has all unseen items, and the reason as a sentence."""
    answer = await body(client, "GET", "/v1/recommendations/u1?n=500", 200)
    unseen = 60 - context.store.current().seen_rows(1).size
    assert (answer["shortfall"]["requested"], answer["shortfall"]["returned"]) == (500, unseen)
    assert len(answer["items"]) == unseen


async def test_similar_items_exclude_the_item(client: Client) -> None:
    """Their source is `similar`; an unknown item is 404."""
    answer = await body(client, "GET", "/v1/items/i4/similar?n=3", 200)
    assert [item["source"] for item in answer["items"]] == ["similar"] * 3
    assert "i4" not in {item["item_id"] for item in answer["items"]}
    problem = await body(client, "GET", "/v1/items/none/similar", 404)
    assert problem["type"] == "/problems/not-found"


async def test_a_model_that_is_swapped_in_during_a_request_changes_no_list_of_similar_items(
    client: Client,
    context: ReplicaContext,
    monkeypatch: pytest.MonkeyPatch,
    make_snapshot: Callable[..., ModelSnapshot],
) -> None:
    """Whether there is the item is decided by the model that the list is made from."""
    current, swapped_in = iter([context.store.current()]), make_snapshot(n_items=3)
    monkeypatch.setattr(context.store, "current", lambda: next(current, swapped_in))
    answer = await body(client, "GET", "/v1/items/i4/similar?n=3", 200)
    assert [item["source"] for item in answer["items"]] == ["similar"] * 3
    await body(client, "GET", "/v1/items/i4/similar?n=3", 404)


async def test_every_list_becomes_a_served_event(client: Client, context: ReplicaContext) -> None:
    """The event holds the list as answered, under the balancer's request id."""
    headers = {"X-Request-Id": "0123456789abcdef0123456789abcdef"}
    answer = await body(client, "GET", "/v1/recommendations/u1?n=3", 200, headers=headers)
    await body(client, "POST", "/v1/recommendations", 200, json={"include": ["i1", "i2"], "exclude": ["i1"], "n": 1})
    await body(client, "GET", "/v1/items/i4/similar?n=2", 200)
    first, second, third = recorded_events(context)
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
    assert [event["request"] for event in (first, second, third)] == [
        {"n": 3},
        {"n": 1, "exclude": ["i1"], "include": ["i1", "i2"]},
        {"n": 2, "similar_to": "i4"},
    ]
    assert [first["seq"], second["seq"], third["seq"]] == [1, 2, 3]


async def test_items_without_a_personal_score_are_popular(
    client: Client, context: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """A user with zero factors gets the most popular items first."""
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


async def test_the_degradation_level_is_in_header_body_and_event(client: Client, context: ReplicaContext) -> None:
    """It is the same in all three."""
    context.state.degraded = "stale"
    async with client.get("/v1/recommendations/u1") as response:
        assert response.headers["X-Degraded"] == "stale"
        assert (await response.json())["degraded"] == "stale"
    assert recorded_events(context)[0]["degraded"] == "stale"


@pytest.mark.parametrize("path", sorted(route.path for route in ROUTES if route.method == "GET"))
async def test_head_is_get_without_a_body(client: Client, context: ReplicaContext, path: str) -> None:
    """And without a served event: no list is shown, so none has an id."""
    path = path.replace("{user_id}", "u1").replace("{item_id}", "i1")
    queried = {"/v1/items/similar": "?item_id=i1", "/recommend": "?user_id=u1", "/v1/recommendations": "?user_id=u1"}
    queried |= {"/v1/users": "?user_id=u1", "/v1/items": "?item_id=i1"}
    path += queried.get(path, "")
    async with client.head(path) as head:
        assert (head.status, await head.read()) == (200, b"")
    assert recorded_events(context) == []
    async with client.get(path) as got:
        wanted = {name for name in got.headers if name != "X-Recommendation-Id"}
        assert {name: head.headers[name] for name in wanted - {"Date"}} == {
            name: got.headers[name] for name in wanted - {"Date"}
        }
    assert "X-Recommendation-Id" not in head.headers
    async with client.head("/v1/popular?n=0") as refused:
        assert refused.status == 422


async def test_the_model_route_shows_the_served_version(client: Client, context: ReplicaContext) -> None:
    """With algorithm, measures and the fingerprint of the data."""
    shown = await body(client, "GET", "/v1/model", 200)
    assert shown["version"] == context.store.version
    assert (shown["algorithm"], shown["measures"], shown["data"]) == ("svd", {"rmse": 0.9}, {"fingerprint": "sha256:0"})
