"""What is sent for each method of the client."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.list_bodies import BoostIn, PinIn, RecommendationsRequest
from service.api.wire import EventsRequest, decode
from service.client import calls
from service.client.address import Address
from service.client.inputs import Boost, Event, ListOptions, Pin


def body_of(call: calls.Call[Any]) -> dict[str, Any]:
    assert call.body is not None
    body: dict[str, Any] = json.loads(call.body)
    return body


@pytest.mark.parametrize(
    ("call", "target"),
    [
        (calls.recommend("42", 10, {}), "/v1/recommendations/42"),
        (calls.recommend("a b/c", 7, {}), "/v1/recommendations?user_id=a%20b%2Fc&n=7"),
        (calls.recommend("..", 10, {}), "/v1/recommendations?user_id=.."),
        (calls.recommend("50%?#é", 10, {"offset": 3}), "/v1/recommendations/50%25%3F%23%C3%A9?offset=3"),
        (calls.recommend(None, 10, {"fields": ["title", "genres"]}), "/v1/popular?fields=title%2Cgenres"),
        (calls.popular(5, None, {"filter": "year > 3"}), "/v1/popular?n=5&filter=year%20%3E%203"),
        (calls.popular(10, "7d", {}), "/v1/popular?window=7d"),
        (calls.similar("318", 10, {}), "/v1/items/318/similar"),
        (calls.similar("..", 10, {}), "/v1/items/similar?item_id=.."),
        (calls.search("toy story", None, 10, {}), "/v1/items?q=toy%20story"),
        (
            calls.search("é", "3/8", 5, {"user_id": "42", "filter": "year > 3", "fields": ["title"]}),
            "/v1/items?q=%C3%A9&like=3%2F8&user_id=42&n=5&filter=year%20%3E%203&fields=title",
        ),
        (calls.search(None, "318", 10, {}), "/v1/items?like=318"),
        (calls.model(), "/v1/model"),
    ],
)
def test_what_a_query_can_say_is_a_get(call: calls.Call[Any], target: str) -> None:
    """With the defaults left out, so that nginx can answer the plain ones; without a key or a body."""
    assert (call.method, call.target, call.body, call.key) == ("GET", target, None, None)


def test_the_rest_is_a_post() -> None:
    """The body is one that the service takes, and holds what was asked for alone."""
    options: ListOptions = {
        "exclude": {"7"},
        "include": ["1", "2"],
        "filter": "year == 1990",
        "boosts": [Boost("year > 2000", 1.5)],
        "pins": [Pin("9", 0)],
        "fields": ("title",),
    }
    call = calls.recommend("42", 5, options)
    assert (call.method, call.target) == ("POST", "/v1/recommendations")
    assert call.body is not None
    read = decode(RecommendationsRequest, call.body)
    assert (read.user_id, read.n, read.exclude, read.include) == ("42", 5, ["7"], ["1", "2"])
    assert (read.boosts, read.pins) == ([BoostIn(filter="year > 2000", factor=1.5)], [PinIn(item_id="9", position=0)])
    assert body_of(calls.recommend("42", 10, {"exclude": iter(["7"])})) == {"user_id": "42", "exclude": ["7"]}
    assert body_of(calls.recommend(None, 10, {"include": ()})) == {"include": []}


def test_a_long_page_token_is_a_post() -> None:
    """A request line has 8 KiB."""
    token = "A" * 7000
    for call in (calls.recommend(None, 10, {"page_token": token}), calls.popular(10, None, {"page_token": token})):
        assert (call.method, body_of(call)) == ("POST", {"page_token": token})
    assert calls.recommend("u", 10, {"page_token": token[:3000]}).method == "GET"


def test_events_have_a_key_and_no_empty_fields() -> None:
    """The key is the caller's, or a new one; a datetime becomes RFC 3339."""
    moment = datetime(2026, 11, 21, 1, 2, 3, 456_789, UTC)
    sent = calls.send_events([Event("rating", "42", "318", 4.5, ts=moment), Event("view", "42", "1")], None)
    other = calls.send_events([], None)
    assert (sent.method, sent.target) == ("POST", "/v1/events")
    assert body_of(sent)["events"] == [
        {"type": "rating", "user_id": "42", "item_id": "318", "value": 4.5, "ts": "2026-11-21T01:02:03.456Z"},
        {"type": "view", "user_id": "42", "item_id": "1"},
    ]
    assert sent.body is not None
    assert len(decode(EventsRequest, sent.body).events) == 2
    assert sent.key != other.key
    assert calls.send_events([], "mine-0001").key == "mine-0001"
    assert calls.erase_user("42").key
    with pytest.raises(ValueError, match="time zone"):
        calls.send_events([Event("view", "42", "1", ts=datetime(2026, 1, 1))], None)  # noqa: DTZ001


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20))
def test_any_id_arrives(id_: str) -> None:
    """In a path it is one segment that no proxy resolves; else it is in the query."""
    for call in (calls.recommend(id_, 10, {}), calls.similar(id_, 10, {}), calls.erase_user(id_)):
        parts = urlsplit(call.target)
        assert call.target.isascii()
        if parts.query:
            assert list(parse_qs(parts.query, strict_parsing=True).values()) == [[id_]]
        else:
            segments = [unquote(segment) for segment in parts.path.split("/")]
            assert id_ in segments
            assert not {".", ".."} & set(segments)


def test_other_routes_keep_their_values() -> None:
    """A write has a key."""
    assert calls.other("GET", "/v1/x?y=1").key is None
    put = calls.other("PUT", "/v1/items/1", {"title": "é"})
    assert (put.body, bool(put.key)) == ('{"title": "é"}'.encode(), True)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://lists.example/api/", "https://lists.example:443/api"),
        ("http://[::1]:81", "http://[::1]:81"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    """With their defaults of ports, and a prefix of the routes."""
    assert Address.parse(url).base_url == base


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://a:b@x", "http://x?y", "http://x#y"])
def test_addresses_that_cannot_be_used_are_refused(url: str) -> None:
    """When the client is made."""
    with pytest.raises(ValueError, match="address of a service"):
        Address.parse(url)
    with pytest.raises(ValueError, match="API key"):
        Address.parse("http://x", "two words")
