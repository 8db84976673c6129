"""Both clients against a real replica: every method, and every kind of refusal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from service.client import (
    AsyncClient,
    Boost,
    Client,
    Event,
    Invalid,
    ItemRecord,
    ListQuery,
    NotFound,
    Pin,
    Recommendations,
    SessionItem,
    UsedFeatures,
)
from service.serving.replica.context import ReplicaContext
from tests.support.replicas import replica_app
from tests.support.replicas.replica_app import recorded_events

Ask = Callable[..., Any]


@pytest.fixture(params=["threads", "asyncio"])
async def ask(request: pytest.FixtureRequest, client: replica_app.Client) -> AsyncIterator[Ask]:
    """Return a function that calls a method of a client by name; one of threads runs beside the event loop."""
    url = str(client.make_url("/")).rstrip("/")
    if request.param == "threads":
        with Client(url) as of_threads:

            async def in_thread(name: str, *args: Any, **options: Any) -> Any:
                return await asyncio.to_thread(getattr(of_threads, name), *args, **options)

            yield in_thread
        return
    async with AsyncClient(url) as of_asyncio:

        async def here(name: str, *args: Any, **options: Any) -> Any:
            return await getattr(of_asyncio, name)(*args, **options)

        yield here


async def test_a_list_an_event_and_another_list(ask: Ask, context: ReplicaContext) -> None:
    """The item that was bought is gone from the next list, and the event names the list."""
    first: Recommendations = await ask("recommend", "u1", 5)
    assert len(first) == 5
    assert first.user_id == "u1"
    assert first.model == context.store.current().version
    event = Event("purchase", "u1", first.item_ids[0], recommendation_id=first.recommendation_id, position=0)
    assert (await ask("send_events", [event])).accepted == 1
    second: Recommendations = await ask("recommend", "u1", 5)
    assert first.item_ids[0] not in second.item_ids
    assert second.freshness.events_applied == 1
    (sent,) = (event for event in recorded_events(context) if event["class"] == "feedback")
    assert (sent["recommendation_id"], sent["position"]) == (first.recommendation_id, 0)
    assert sent["event_id"].endswith("-0")


async def test_the_same_key_twice_is_one_event(ask: Ask, context: ReplicaContext) -> None:
    """The events have the ids of the key."""
    for _ in range(2):
        assert (await ask("send_events", [Event("view", "u1", "i1")], key="a-key-of-mine")).accepted == 1
    ids = {event["event_id"] for event in recorded_events(context) if event["class"] == "feedback"}
    assert ids == {"a-key-of-mine-0"}


async def test_lists_with_all_that_can_be_asked_for(ask: Ask) -> None:
    """A POST and a GET agree where both can be used."""
    plain = await ask("recommend", "u1", 8)
    without = await ask("recommend", "u1", 7, exclude=[plain.item_ids[0]])
    assert without.item_ids == plain.item_ids[1:]
    among = await ask("recommend", "u1", 5, include=plain.item_ids[:3])
    assert among.item_ids == plain.item_ids[:3]
    assert (among.shortfall.code, among.shortfall.returned) == ("include", 3)
    pinned = await ask("recommend", "u1", 3, pins=[Pin(plain.item_ids[5], 0)])
    assert (pinned.item_ids[0], pinned.items[0].source) == (plain.item_ids[5], "pinned")
    assert (await ask("recommend", "u1", 3, offset=2)).item_ids == plain.item_ids[2:5]
    assert (await ask("popular", 3)).user_id is None
    assert (await ask("recommend", None, 3)).item_ids == (await ask("popular", 3)).item_ids
    session = ["i3", SessionItem("i4", "rating", 5.0)]
    assert len(await ask("recommend", None, 3, session=session, diversity=0.3, deadline_ms=1000)) == 3
    featured = await ask("recommend", "u1", 3, user_features={"age": 27, "town": None})
    assert featured.user_features == UsedFeatures((), ("age", "town"))
    assert not {"i3", "i4"} & set((await ask("recommend", None, 50, seeds=["i3", "i4"])).item_ids)
    assert len(await ask("popular", 3, window="7d")) == 3
    many = await ask("recommend_many", [ListQuery("u1", 8), ListQuery("u1", 3, {"offset": 2}), ListQuery(None, 2)])
    assert [each.item_ids for each in many[:2]] == [plain.item_ids, plain.item_ids[2:5]]
    assert [each.user_id for each in many] == ["u1", "u1", None]
    similar = await ask("similar", plain.item_ids[0], 3, explain=1)
    for item in similar:
        assert [each.item_id for each in item.because.items] == [plain.item_ids[0]]
        assert item.because.items[0].share == pytest.approx(item.score, abs=1e-5)
    assert {item.source for item in similar} == {"similar"}


async def test_odd_ids_arrive(ask: Ask) -> None:
    """An unknown user gets the popular items, whatever the id is."""
    popular = await ask("popular", 10)
    for user_id in ("..", ".", "a/b", "%2F", "é ?#&+", "🙂"):
        found = await ask("recommend", user_id, 10)
        assert (found.user_id, found.item_ids) == (user_id, popular.item_ids)


async def test_items_are_written_and_listed(ask: Ask) -> None:
    """One by one or together; a hidden one is in no list, and a deleted one is gone."""
    first, *_ = (await ask("recommend", "u1", 3)).item_ids
    receipt = await ask("put_item", ItemRecord(first, "A film", {"year": 1990, "genre": ["Drama"]}, hidden=True))
    assert receipt.item_id == first
    assert first not in (await ask("recommend", "u1", 3)).item_ids
    shown = await ask("item", first)
    assert (shown.title, shown.attributes, shown.hidden) == ("A film", {"year": 1990, "genre": ["Drama"]}, True)
    records = [ItemRecord(first, "Again"), ItemRecord("a new/one", available_from=datetime.now(UTC))]
    assert (await ask("put_items", records)).accepted == 2
    found = (await ask("recommend", "u1", 1, fields=["title"])).items[0]
    assert (found.item_id, found.fields) == (first, {"title": "Again"})
    assert (await ask("item", "a new/one")).available_until is None
    await ask("delete_item", "a new/one")
    with pytest.raises(NotFound):
        await ask("item", "a new/one")


async def test_what_is_known_of_a_user(ask: Ask) -> None:
    """The latest event first."""
    before = await ask("known_user", "u1", 3)
    await ask("send_events", [Event("rating", "u1", "i7", 4.0)])
    known = await ask("known_user", "u1", 1)
    assert (known.trained, known.n_events, known.freshness.events_applied) == (True, before.n_events + 1, 1)
    assert (known.events[0].item_id, known.events[0].value, known.interactions[0].type) == ("i7", 4.0, "rating")


async def test_refusals(ask: Ask) -> None:
    """Each is an error with the problem of the service."""
    with pytest.raises(NotFound, match="no item 'nothing'"):
        await ask("similar", "nothing")
    with pytest.raises(Invalid) as refused:
        await ask("recommend", "u1", 501)
    assert refused.value.type == "/problems/invalid"
    assert refused.value.errors[0].field == "n"
    with pytest.raises(Invalid) as refused:
        await ask("recommend", "u1", boosts=[Boost("year = 1990", 2.0)])
    assert refused.value.errors[0].column == 6
    with pytest.raises(Invalid) as refused:
        await ask("send_events", [Event("view", "u1", "i1"), Event("rating", "u1", "i1")])
    assert refused.value.errors[0].row == 1


async def test_the_model_an_erasure_and_any_other_route(ask: Ask, context: ReplicaContext) -> None:
    """The methods without a list."""
    model = await ask("model")
    assert (model.version, model.n_items) == (context.store.current().version, 60)
    assert (await ask("call", "GET", "/v1/model"))["version"] == model.version
    erasure = await ask("erase_user", "u1")
    assert (erasure.user_id, erasure.durability) == ("u1", "disk")


async def test_pages_repeat_nothing(client: replica_app.Client) -> None:
    """All pages together are the catalogue without the seen items, in the order of one long list."""
    url = str(client.make_url("/")).rstrip("/")
    async with AsyncClient(url) as of_asyncio:
        paged = [item for page in [page async for page in of_asyncio.pages("u1", 7)] for item in page.item_ids]
        whole = await of_asyncio.recommend("u1", 500)
    with Client(url) as of_threads:
        in_thread = await asyncio.to_thread(
            lambda: [item for page in of_threads.pages("u1", 7, exclude=[paged[0]]) for item in page.item_ids]
        )
    assert paged == whole.item_ids
    assert in_thread == whole.item_ids[1:]
