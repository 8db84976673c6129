"""The search of the catalogue, on the real application with an in-memory stream."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from service.errors import Unavailable
from service.models.fold_in.settings import FoldIn
from service.models.history.weights import HistoryWeights
from service.models.items.record import ItemRecord
from service.models.items.records import ItemRecords
from service.serving.catalogue import search as catalogue_search
from service.serving.replica.context import ReplicaContext
from tests.support.replicas.replica_app import Client, body, recorded_events

TITLES = {
    0: "Toy Story (1995)",
    1: "Toy Story 2 (1999)",
    2: "Amélie (2001)",
    3: "千と千尋の神隠し",
    4: "The Story of Us (1999)",
    5: "Ocean's Eleven (2001)",
    6: "Philadelphia (1993)",
}


@pytest.fixture
def titled(context: ReplicaContext) -> ReplicaContext:
    """A replica whose model has titles, genres and years."""
    model = context.store.current()
    records = [
        ItemRecord(TITLES.get(row, f"Untold {row}"), {"genres": ["Drama" if row % 2 else "Comedy"], "year": 1990 + row})
        for row in range(60)
    ]
    context.store.swap(replace(model, item_records=ItemRecords.of(records)))
    return context


async def found(client: Client, query: str) -> list[str]:
    answer = await body(client, "GET", f"/v1/items?{query}", 200)
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("toy story", "i0"),
        ("TOY story 2", "i1"),
        ("stor toy", "i0"),
        ("amelie", "i2"),
        ("AMÉL", "i2"),
        ("千尋", "i3"),
        ("oceans eleven", "i5"),
        ("story us", "i4"),
        ("philadelhpia", "i6"),
        ("toi storry", "i0"),
        ("i7", "i7"),
        ("1996 comedy", "i6"),
    ],
)
async def test_words_find_titles_and_attributes(client: Client, titled: ReplicaContext, words: str, first: str) -> None:
    """In any case and order, without diacritics, unfinished, misspelt, without spaces; an id finds its item."""
    ids = await found(client, f"q={quote(words)}")
    assert ids[0] == first


async def test_an_answer_says_what_was_searched_for(client: Client, titled: ReplicaContext) -> None:
    """With the requested fields, and the words that a misspelling was taken for; nothing is recorded as served."""
    answer = await body(client, "GET", "/v1/items?q=philadelhpia&fields=title,year&n=1", 200)
    score = answer["items"][0].pop("score")
    assert 5 < score < 7
    assert answer == {
        "query": "philadelhpia",
        "corrected": "philadelphia",
        "like": None,
        "user_id": None,
        "model": titled.store.version,
        "items": [{"item_id": "i6", "fields": {"title": "Philadelphia (1993)", "year": 1996}}],
    }
    assert (await body(client, "GET", "/v1/items?q=philadelphia", 200))["corrected"] is None
    assert recorded_events(titled) == []


async def test_items_with_some_of_the_words_follow_those_with_all(client: Client, titled: ReplicaContext) -> None:
    """So that a word too many does not hide everything."""
    ids = await found(client, "q=toy+story+philadelphia")
    assert set(ids) == {"i0", "i1", "i4", "i6"}
    assert await found(client, "q=nothingofthekind") == []


async def test_a_filter_holds_for_what_is_found(client: Client, titled: ReplicaContext) -> None:
    """By words and by likeness; an error of a filter is that of lists."""
    assert await found(client, f"q=story&filter={quote('year >= 1991')}") == ["i1", "i4"]
    only_comedies = quote('genre == "Comedy"')
    comedies = await found(client, f"like=i9&n=500&filter={only_comedies}")
    assert comedies
    assert all(int(item_id[1:]) % 2 == 0 for item_id in comedies)
    problem = await body(client, "GET", "/v1/items?q=story&filter=year+%3D+3", 422)
    assert problem["errors"][0]["field"] == "filter"


async def test_like_finds_what_the_route_of_similar_items_has(client: Client, titled: ReplicaContext) -> None:
    """In the same order, unless a user has a taste; an unknown item is 404, as there."""
    similar = (await body(client, "GET", "/v1/items/i9/similar?n=500", 200))["items"]
    near = [item["item_id"] for item in similar if item["score"] > 0]
    assert await found(client, "like=i9&n=500") == near
    liked = await found(client, "like=i9&n=500&user_id=u1")
    assert set(liked) == set(near)
    assert liked != near
    await body(client, "GET", "/v1/items?like=nope", 404)
    await body(client, "DELETE", "/v1/items/i9", 202)
    await body(client, "GET", "/v1/items?like=i9", 404)


async def test_both_order_what_matches_by_likeness(client: Client, titled: ReplicaContext) -> None:
    """Words choose, and the likeness decides among equals."""
    ids = await found(client, "q=untold&like=i20&n=500")
    scores = {
        item["item_id"]: item["score"]
        for item in (await body(client, "GET", "/v1/items/i20/similar?n=500", 200))["items"]
    }
    assert set(ids) == {f"i{row}" for row in range(7, 60)} - {"i20"}
    assert scores[ids[0]] > scores[ids[-1]]


async def test_the_taste_of_a_user_decides_among_equals(client: Client, titled: ReplicaContext) -> None:
    """The order of items that match equally is that of the user's list; whole titles stay in front."""
    listed = [item["item_id"] for item in (await body(client, "GET", "/v1/recommendations/u1?n=500", 200))["items"]]
    ids = await found(client, "q=untold&user_id=u1&n=500")
    expected = [item_id for item_id in listed if int(item_id[1:]) >= 7]
    assert [item_id for item_id in ids if item_id in expected] == expected
    assert set(ids) - set(expected), "items that the user has seen are found, too"
    popular = await found(client, "q=untold&n=500")
    assert await found(client, "q=untold&n=500&user_id=nobody") == popular != ids
    for user in ("u0", "u1", "u2", "u3"):
        assert (await found(client, f"q=toy+story&user_id={user}"))[0] == "i0"


async def test_live_events_of_a_user_count_in_a_search(client: Client, titled: ReplicaContext) -> None:
    """A user whom the model does not know is answered as nobody, until an event says what they like."""
    model = titled.store.current()
    titled.store.swap(replace(model, fold_in=FoldIn("decayed_sum", HistoryWeights(half_life=2.0))))
    popular = await found(client, "q=untold&n=500")
    assert await found(client, "q=untold&n=500&user_id=stranger") == popular
    event = {"type": "purchase", "user_id": "stranger", "item_id": "i20"}
    await body(client, "POST", "/v1/events", 202, json={"events": [event]})
    expected = np.argsort(-(model.item_factors[7:] @ model.item_factors[20] + model.item_bias[7:]), kind="stable") + 7
    assert await found(client, "q=untold&n=500&user_id=stranger") == [f"i{row}" for row in expected.tolist()]


async def test_changes_of_items_are_searched_at_once(client: Client, titled: ReplicaContext) -> None:
    """A written title, a new item once it has a row, a hidden and a removed one."""
    assert await found(client, "q=zanzibar") == []
    await body(client, "PUT", "/v1/items/i8", 202, json={"title": "Zanzibar"})
    await body(
        client, "PUT", "/v1/items/fresh", 202, json={"title": "Zanzibar nights", "attributes": {"genres": ["War"]}}
    )
    assert await found(client, "q=zanzibar") == ["i8"]
    await titled.items.build()
    assert await found(client, "q=zanzibar") == ["i8", "fresh"]
    assert await found(client, "q=zanzibra") == ["i8", "fresh"]
    assert await found(client, "q=war") == ["fresh"]
    await body(client, "PUT", "/v1/items/i8", 202, json={"title": "Zanzibar", "hidden": True})
    assert await found(client, "q=zanzibar") == ["fresh"]
    await body(client, "DELETE", "/v1/items/fresh", 202)
    assert await found(client, "q=zanzibar") == []
    await body(client, "PUT", "/v1/items/i8", 202, json={})
    assert await found(client, "q=untold+8") == ["i8", *(await found(client, "q=untold+8"))[1:]]
    assert await found(client, "q=zanzibar") == []


async def test_another_model_is_searched_after_a_swap(
    client: Client, titled: ReplicaContext, await_until: Callable[..., Any]
) -> None:
    """The old index answers until that of the new model is built; items that are gone are not found."""
    assert await found(client, "q=philadelphia") == ["i6"]
    records = [ItemRecord("Casablanca" if row == 2 else f"Other {row}") for row in range(60)]
    titled.store.swap(replace(titled.store.current(), item_records=ItemRecords.of(records)))
    await found(client, "q=casablanca")

    async def is_found() -> bool:
        return await found(client, "q=casablanca") == ["i2"]

    await await_until(is_found)
    assert await found(client, "q=philadelphia") == []


async def test_a_first_search_does_not_wait_without_end(
    client: Client, titled: ReplicaContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first index is built, it is 503 with Retry-After; the build goes on."""
    monkeypatch.setattr(catalogue_search, "_PATIENCE_S", 0.0)
    problem = await body(client, "GET", "/v1/items?q=toy", 503)
    assert problem["detail"] == str(Unavailable("The words of the items are being indexed; try again later."))
    building = titled.search._building
    assert building is None or not building.done()
    if building is not None:
        await asyncio.wait([building])
    assert (await found(client, "q=toy"))[0] == "i0"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "item_id"),
        ("n=3", "item_id"),
        ("q=", "q"),
        ("q=" + "x" * 257, "q"),
        ("q=a%00b", "q"),
        ("q=%FF", "q"),
        ("q=a&q=b", "q"),
        ("q=" + "+".join("a" * 17), "q"),
        ("q=a&n=0", "n"),
        ("q=a&offset=3", "offset"),
        ("q=a&item_id=i1", "item_id"),
        ("like=", "like"),
        ("q=a&user_id=", "user_id"),
        ("q=a&fields=1", "fields"),
    ],
)
async def test_bad_searches_are_refused(client: Client, query: str, field: str) -> None:
    """With the field that is wrong."""
    problem = await body(client, "GET", f"/v1/items?{query}", 422)
    assert problem["errors"][0]["field"] == field
