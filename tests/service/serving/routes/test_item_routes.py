"""The routes of the item catalogue, on the real application with an in-memory stream."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.models.snapshot import ModelSnapshot
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, body, recorded_events

RECORD = {
    "title": "Heat (1995)",
    "attributes": {"genres": ["Crime", "Drama"], "year": 1995, "stars": 4.5, "colour": True, "studio": "Warner"},
    "hidden": False,
    "available_from": "2026-01-01T00:00:00+01:00",
    "available_until": None,
}


@pytest.fixture
def titled(context: ReplicaContext) -> ReplicaContext:
    """A replica whose model has titles and genres."""
    model = context.store.current()
    records = [ItemRecord(f"Title {row}", {"genres": ["Drama" if row % 2 else "Comedy"]}) for row in range(60)]
    context.store.swap(replace(model, item_records=ItemRecords.of(records)))
    return context


async def test_an_item_is_written_shown_and_removed(client: Client, titled: ReplicaContext) -> None:
    """The answer names the archived event; what is written is shown at once, and a removed item is unknown."""
    receipt = await body(client, "PUT", "/v1/items/new%2F1", 202, json=RECORD, headers={"Idempotency-Key": "key_0123"})
    (event,) = recorded_events(titled)
    assert receipt == {
        "item_id": "new/1",
        "event_id": "key_0123-0",
        "received_at": event["received_at"],
        "durability": "disk",
    }
    assert (event["class"], event["kind"], event["item_id"], event["attributes"]) == (
        *("item", "put", "new/1"),
        RECORD["attributes"],
    )
    shown = await body(client, "GET", "/v1/items?item_id=new/1", 200)
    assert shown == {**RECORD, "item_id": "new/1", "available_from": "2025-12-31T23:00:00.000Z", "trained": False}
    await body(client, "DELETE", "/v1/items?item_id=new/1", 202)
    await body(client, "GET", "/v1/items/new%2F1", 404)
    assert [event["kind"] for event in recorded_events(titled)] == ["put", "delete"]


async def test_what_a_writer_leaves_out_stays_as_trained(client: Client, titled: ReplicaContext) -> None:
    """An item can be hidden without its title; given attributes replace all; a removal is undone by a write."""
    trained = await body(client, "GET", "/v1/items/i3", 200)
    assert (trained["title"], trained["attributes"], trained["trained"]) == ("Title 3", {"genres": ["Drama"]}, True)
    await body(client, "PUT", "/v1/items/i3", 202, json={"hidden": True})
    assert await body(client, "GET", "/v1/items/i3", 200) == {**trained, "hidden": True}
    await body(client, "PUT", "/v1/items/i3", 202, json={"attributes": {"year": 1999}})
    assert await body(client, "GET", "/v1/items/i3", 200) == {**trained, "attributes": {"year": 1999}}
    await body(client, "DELETE", "/v1/items/i3", 202)
    await body(client, "GET", "/v1/items/i3", 404)
    await body(client, "PUT", "/v1/items/i3", 202, json={})
    assert await body(client, "GET", "/v1/items/i3", 200) == trained


async def test_several_items_are_written_all_or_none(client: Client, titled: ReplicaContext) -> None:
    """A bad one refuses all, with its row; of two records of one item the last one stays."""
    items: list[dict[str, Any]] = [{"item_id": "a", "title": "A"}, {"item_id": "b"}, {"item_id": "a", "title": "A2"}]
    bad = [*items, {"item_id": "c", "attributes": {"x": None}}]
    problem = await body(client, "POST", "/v1/items", 422, json={"items": bad})
    assert (problem["errors"][0]["field"], problem["errors"][0]["row"]) == ("items[3].attributes.x", 3)
    assert not recorded_events(titled)
    headers = {"Idempotency-Key": "key_0123"}
    answer = await body(client, "POST", "/v1/items", 202, json={"items": items}, headers=headers)
    assert answer == {"accepted": 3, "durability": "disk"}
    assert [event["event_id"] for event in recorded_events(titled)] == ["key_0123-0", "key_0123-1", "key_0123-2"]
    assert (await body(client, "GET", "/v1/items/a", 200))["title"] == "A2"
    await body(client, "POST", "/v1/items", 422, json={"items": items[:1]}, headers=headers)


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": 3}, "title"),
        ({"title": "x" * 513}, "title"),
        ({"name": "x"}, "name"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {f"a{i}": 1 for i in range(33)}}, "attributes"),
        ({"attributes": {"title": "x"}}, "attributes.title.[key]"),
        ({"attributes": {"schema": "x"}}, "attributes.schema.[key]"),
        ({"attributes": {"1st": 1}}, "attributes.1st.[key]"),
        ({"attributes": {"a": {}}}, "attributes.a"),
        ({"attributes": {"a": [1]}}, "attributes.a"),
        ({"attributes": {"a": [""]}}, "attributes.a"),
        ({"attributes": {"a": "x" * 257}}, "attributes.a"),
        ({"attributes": {"a": ["x"] * 101}}, "attributes.a"),
        ({"attributes": {"a": 10**16}}, "attributes.a"),
        ({"hidden": 1}, "hidden"),
        ({"available_from": "yesterday"}, "available_from"),
        ({"available_from": "2026-01-02T00:00:00Z", "available_until": "2026-01-01T00:00:00Z"}, ""),
    ],
)
async def test_bad_records_are_refused(client: Client, record: dict[str, Any], field: str) -> None:
    """With the field that is wrong."""
    problem = await body(client, "PUT", "/v1/items/x", 422, json=record)
    assert problem["errors"][0]["field"] == field


async def test_a_key_stands_for_one_change(client: Client, titled: ReplicaContext) -> None:
    """The same request again is accepted, and the archive removes the duplicate; another item or record is refused."""
    headers = {"Idempotency-Key": "key_0123456789"}
    for _ in range(2):
        await body(client, "PUT", "/v1/items/a", 202, json={"title": "A"}, headers=headers)
    await body(client, "PUT", "/v1/items/b", 422, json={"title": "A"}, headers=headers)
    await body(client, "PUT", "/v1/items/a", 422, json={"title": "B"}, headers=headers)
    await body(client, "DELETE", "/v1/items/a", 422, headers=headers)
    assert {event["event_id"] for event in recorded_events(titled)} == {"key_0123456789-0"}


async def test_a_removed_item_is_in_no_list(client: Client, titled: ReplicaContext) -> None:
    """From the answer on, on every route of lists; hidden items and those outside their window, too."""
    first = await body(client, "GET", "/v1/recommendations/u1?n=10", 200)
    gone = [item["item_id"] for item in first["items"][:3]]
    await body(client, "DELETE", f"/v1/items/{gone[0]}", 202)
    await body(client, "PUT", f"/v1/items/{gone[1]}", 202, json={"hidden": True})
    await body(client, "PUT", f"/v1/items/{gone[2]}", 202, json={"available_from": "2999-01-01T00:00:00Z"})
    kept = [item["item_id"] for item in first["items"][3:]]
    lists = {
        "recommendations/u1?n=7": kept,
        "recommendations/u1?n=500": None,
        "popular?n=500": None,
        f"items/{kept[0]}/similar?n=500": None,
    }
    for path, expected in lists.items():
        ids = [item["item_id"] for item in (await body(client, "GET", f"/v1/{path}", 200))["items"]]
        assert not set(gone) & set(ids), path
        assert expected is None or ids == expected
    posted = await body(client, "POST", "/v1/recommendations", 200, json={"user_id": "u1", "include": [*gone, kept[0]]})
    assert [item["item_id"] for item in posted["items"]] == [kept[0]]
    await body(client, "GET", f"/v1/items/{gone[0]}/similar", 404)


async def test_a_new_item_is_listed_by_its_attributes(client: Client, titled: ReplicaContext) -> None:
    """Once its row is built, in the lists of those who like such items, and near items like it."""
    await body(client, "PUT", "/v1/items/fresh", 202, json={"title": "Fresh", "attributes": {"genres": ["Comedy"]}})
    await titled.items.build()
    listed = await body(client, "GET", "/v1/recommendations/u1?n=500&fields=title", 200)
    (found,) = [item for item in listed["items"] if item["item_id"] == "fresh"]
    assert found["fields"] == {"title": "Fresh"}
    near = await body(client, "GET", "/v1/items/fresh/similar?n=5", 200)
    assert len(near["items"]) == 5
    assert titled.store.catalogue.column("genre") is not None


async def test_another_model_keeps_the_changes(
    client: Client, titled: ReplicaContext, make_snapshot: Callable[..., ModelSnapshot]
) -> None:
    """A model that is swapped in hides what was hidden, whether it was built with the change or before it."""
    build = titled.items.builder()
    await body(client, "DELETE", "/v1/items/i5", 202)
    other = replace(make_snapshot(n_items=50, seed=1), version="other")
    titled.store.swap(other, build(other))
    assert titled.store.catalogue.unavailable_rows(0.0).tolist() == [5]
    titled.store.swap(other, titled.items.builder()(other))
    assert titled.store.catalogue.unavailable_rows(0.0).tolist() == [5]
