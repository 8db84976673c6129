"""The routes of the API as calls: what is sent, and what the answer becomes (pure).

A list is asked for with GET where a query can say everything, because nginx answers those itself while no replica does;
else with POST.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from service.client.answers import (
    Accepted,
    Erasure,
    FoundItems,
    ItemDetails,
    ItemReceipt,
    KnownUser,
    Lists,
    Recommendations,
    ServedModel,
)
from service.client.decoding import decoded
from service.client.inputs import Event, ItemRecord, ListOptions, ListQuery, PageOptions, SearchOptions, as_json

T = TypeVar("T")

N_DEFAULT: Final = 10
# nginx takes request lines of 8 KiB.
_LONGEST_TARGET: Final = 6000


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, the same at every attempt.

    Attributes:
        method: The HTTP method.
        target: Path and query, percent-encoded.
        answer: Makes the result of the JSON value of a good answer; raises `Undecodable`.
        body: The JSON body; None without one.
        key: The Idempotency-Key; None for a request that changes nothing.
    """

    method: str
    target: str
    answer: Callable[[Any], T]
    body: bytes | None = None
    key: str | None = None


def recommend(user_id: str | None, n: int, options: ListOptions) -> Call[Recommendations]:
    """Ask for a list; without a user, for the popular items."""
    query, body = _query(n, options), _body(user_id, n, options)
    route = "/v1/popular" if user_id is None else "/v1/recommendations/{}"
    target = _target(route, "user_id", user_id, query)
    if body.keys() <= {"user_id", *query} and len(target) <= _LONGEST_TARGET:
        return Call("GET", target, partial(decoded, Recommendations))
    return Call("POST", "/v1/recommendations", partial(decoded, Recommendations), _encoded(body))


def recommend_many(queries: Iterable[ListQuery]) -> Call[Lists]:
    """Ask for several lists at once."""
    body = {"requests": [_body(query.user_id, query.n, query.options) for query in queries]}
    return Call("POST", "/v1/recommendations/batch", partial(decoded, Lists), _encoded(body))


def popular(n: int, window: str | None, options: PageOptions) -> Call[Recommendations]:
    """Ask for the popular items."""
    query = _query(n, options)
    target = _target("/v1/popular", "", None, query if window is None else {**query, "window": window})
    if window is not None or len(target) <= _LONGEST_TARGET:
        return Call("GET", target, partial(decoded, Recommendations))
    return Call("POST", "/v1/recommendations", partial(decoded, Recommendations), _encoded(query))


def similar(item_id: str, n: int, options: PageOptions) -> Call[Recommendations]:
    """Ask for the items nearest to an item."""
    target = _target("/v1/items/{}/similar", "item_id", item_id, _query(n, options))
    return Call("GET", target, partial(decoded, Recommendations))


def search(query: str | None, like: str | None, n: int, options: SearchOptions) -> Call[FoundItems]:
    """Search the catalogue."""
    given = {
        "q": query,
        "like": like,
        "user_id": options.get("user_id"),
        "n": None if n == N_DEFAULT else n,
        "filter": options.get("filter"),
        "fields": list(options.get("fields", ())) or None,
    }
    target = _target("/v1/items", "", None, {name: value for name, value in given.items() if value is not None})
    return Call("GET", target, partial(decoded, FoundItems))


def send_events(events: Iterable[Event], key: str | None) -> Call[Accepted]:
    """Report actions of users."""
    body = {"events": [as_json(event) for event in events]}
    return Call("POST", "/v1/events", partial(decoded, Accepted), _encoded(body), key or new_key())


def known_user(user_id: str, n: int) -> Call[KnownUser]:
    """Ask for what lists of a user answer to."""
    query = {} if n == N_DEFAULT else {"n": n}
    return Call("GET", _target("/v1/users/{}", "user_id", user_id, query), partial(decoded, KnownUser))


def erase_user(user_id: str) -> Call[Erasure]:
    """Erase a user."""
    return Call("DELETE", _target("/v1/users/{}", "user_id", user_id, {}), partial(decoded, Erasure), key=new_key())


def item(item_id: str) -> Call[ItemDetails]:
    """Ask for what is known of an item."""
    return Call("GET", _target("/v1/items/{}", "item_id", item_id, {}), partial(decoded, ItemDetails))


def put_item(record: ItemRecord) -> Call[ItemReceipt]:
    """Write an item."""
    body = as_json(record)
    target = _target("/v1/items/{}", "item_id", body.pop("item_id"), {})
    return Call("PUT", target, partial(decoded, ItemReceipt), _encoded(body), new_key())


def put_items(records: Iterable[ItemRecord], key: str | None) -> Call[Accepted]:
    """Write several items."""
    body = {"items": [as_json(record) for record in records]}
    return Call("POST", "/v1/items", partial(decoded, Accepted), _encoded(body), key or new_key())


def delete_item(item_id: str) -> Call[ItemReceipt]:
    """Remove an item from every list."""
    return Call("DELETE", _target("/v1/items/{}", "item_id", item_id, {}), partial(decoded, ItemReceipt), key=new_key())


def model() -> Call[ServedModel]:
    """Ask for the served model."""
    return Call("GET", "/v1/model", partial(decoded, ServedModel))


def other(method: str, target: str, body: Any = None) -> Call[Any]:
    """Ask for any route by its path and query, percent-encoded; the answer stays JSON values."""
    key = None if method == "GET" else new_key()
    return Call(method, target, lambda value: value, None if body is None else _encoded(body), key)


def new_key() -> str:
    """Return a new Idempotency-Key."""
    return str(uuid.uuid4())


def _body(user_id: str | None, n: int, options: ListOptions) -> dict[str, Any]:
    """Return the body of a request for a list, without what is as by default."""
    given = {
        "user_id": user_id,
        **_query(n, options),
        "include": None if options.get("include") is None else list(options["include"] or ()),
        "exclude": list(options.get("exclude", ())) or None,
        "session": [each if isinstance(each, str) else as_json(each) for each in options.get("session", ())] or None,
        "user_features": dict(options.get("user_features", {})) or None,
        "seeds": list(options.get("seeds", ())) or None,
        "boosts": [as_json(boost) for boost in options.get("boosts", ())] or None,
        "pins": [as_json(pin) for pin in options.get("pins", ())] or None,
        "diversity": options.get("diversity") or None,
        "impression_factor": options.get("impression_factor"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _query(n: int, options: PageOptions) -> dict[str, Any]:
    """Return the fields of a list that a query or a body may have, without those that are as by default."""
    given = {
        "n": None if n == N_DEFAULT else n,
        "offset": options.get("offset") or None,
        "filter": options.get("filter"),
        "page_token": options.get("page_token"),
        "fields": list(options.get("fields", ())) or None,
        "explain": options.get("explain") or None,
        "deadline_ms": options.get("deadline_ms"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _target(route: str, id_field: str, id_: str | None, query: dict[str, Any]) -> str:
    """Return path and query; an id that nginx or a browser would take for a step in the path goes into the query."""
    texts: dict[str, str] = {
        name: ",".join(value) if isinstance(value, list) else str(value) for name, value in query.items()
    }
    if id_ is not None and (id_ in {".", ".."} or "/" in id_):
        texts = {id_field: id_, **texts}
        # The same route without the id in its path.
        route = route.replace("/{}", "")
    path = route if id_ is None else route.format(quote(id_, safe=""))
    return f"{path}?{urlencode(texts, quote_via=quote, safe='')}" if texts else path


def _encoded(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
