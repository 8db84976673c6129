"""The checked inputs of a request: ids of its path or query, numbers, headers and its body.

Invariant: an input that is not as documented raises `Invalid` with the field's name, or another `RequestError`.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from service.api import wire
from service.api.search_wire import TEXT_LIMIT, TEXT_RULE
from service.errors import Malformed, RequestTimedOut, TooLarge, UnsupportedBody
from service.lists.list_request import ListRequest
from service.lists.popular_window import WINDOW_RULE, window_s
from service.serving.replica.context import CONTEXT

JSON: Final = "application/json"
# As ids: without control characters, and without lone surrogates, which have no UTF-8.
_TEXT: Final = re.compile(f"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{TEXT_LIMIT}}}")


def read_id(request: web.Request, name: str, other_fields: tuple[str, ...] = ()) -> str:
    """Return a user or item id of the path, or of the query if the route's path has none.

    Raises:
        Invalid: The id is malformed or not given exactly once, or the query has a field beside it and the other ones.
    """
    if name in request.match_info:
        require_query_fields(request, other_fields)
        value, raw = request.match_info[name], request.rel_url.raw_path
    else:
        require_query_fields(request, (name, *other_fields))
        given = request.query.getall(name, [])
        if len(given) != 1:
            raise wire.invalid_field(name, f"was given {len(given)} times, and is needed once")
        value, raw = given[0], request.rel_url.raw_query_string
    _require_utf8(name, value, raw)
    if not wire.valid_id(value):
        raise wire.invalid_field(name, wire.ID_RULE)
    return value


def read_text(request: web.Request, name: str) -> str | None:
    """Return an id or the words of a search from the query; None if they are not given.

    Raises:
        Invalid: The text is malformed, or is given more than once.
    """
    given = request.query.getall(name, [])
    if not given:
        return None
    if len(given) > 1:
        raise wire.invalid_field(name, f"was given {len(given)} times")
    (value,) = given
    _require_utf8(name, value, request.rel_url.raw_query_string)
    if name == "q":
        if not _TEXT.fullmatch(value):
            raise wire.invalid_field(name, TEXT_RULE)
    elif not wire.valid_id(value):
        raise wire.invalid_field(name, wire.ID_RULE)
    return value


def _require_utf8(name: str, value: str, raw: str) -> None:
    # aiohttp leaves bytes that are no UTF-8 percent-encoded in a path and replaces them in a query, and the text would
    # be a valid but different one.
    if "%" in value or "\ufffd" in value:
        try:
            unquote(raw, errors="strict")
        except UnicodeDecodeError:
            raise wire.invalid_field(name, "must be UTF-8 behind its percent-encoding") from None


def now_s() -> float:
    """Return the time of a request, Unix seconds in whole milliseconds."""
    return int(time.time() * 1000) / 1000


def require_query_fields(request: web.Request, known: tuple[str, ...]) -> None:
    """Refuse a query that has other fields than the known ones.

    Raises:
        Invalid: There is an unknown field.
    """
    if request.query_string:
        for name in request.query:
            if name not in known:
                # The answer quotes the name, and lone surrogates have no UTF-8.
                shown = name[:64].encode("utf-8", "replace").decode()
                raise wire.invalid_field(shown, "is not a field of this query")


class ListQuery(NamedTuple):
    """The fields of a list in a query, as in the body of a POST."""

    n: int = wire.N_DEFAULT
    offset: int = 0
    filter: str | None = None
    page_token: str | None = None
    fields: Sequence[str] = ()
    explain: int = 0
    deadline_ms: int | None = None

    def request(
        self, user_id: str | None = None, *, similar_to: str | None = None, window: str | None = None
    ) -> ListRequest:
        """Return the request for a list of a user, of similar items, or of what is popular."""
        return ListRequest(
            self.n,
            user_id,
            self.offset,
            fields=self.fields,
            deadline_ms=self.deadline_ms,
            similar_to=similar_to,
            window=window,
            page_token=self.page_token,
            filter=self.filter,
            explain=self.explain,
        )


_NO_LIST_QUERY: Final = ListQuery()
LIST_FIELDS: Final = ListQuery._fields


def read_list_query(request: web.Request) -> ListQuery:
    """Return the fields of a list in the query; other fields are left to `require_query_fields`.

    Raises:
        Invalid: A field is malformed, or is given more than once.
    """
    if not request.query_string:
        return _NO_LIST_QUERY
    found: dict[str, Any] = {}
    for name, text in request.query.items():
        if name not in LIST_FIELDS:
            continue
        if name in found:
            raise wire.invalid_field(name, f"was given {len(request.query.getall(name))} times")
        if name == "n":
            found[name] = _number(name, text, 1, wire.N_LIMIT)
        elif name == "deadline_ms":
            found[name] = _number(name, text, 1, wire.DEADLINE_LIMIT_MS)
        elif name == "explain":
            found[name] = _number(name, text, 0, wire.EXPLAIN_LIMIT)
        elif name == "offset":
            found[name] = _number(name, text, 0, wire.OFFSET_LIMIT)
        else:
            found[name] = _field_names(text) if name == "fields" else text
    return ListQuery(**found)


def read_window(request: web.Request) -> str | None:
    """Return the window of the popular items from the query; None without one.

    Raises:
        Invalid: It is malformed, or is given more than once.
    """
    given = request.query.getall("window", [])
    if not given:
        return None
    if len(given) > 1:
        raise wire.invalid_field("window", f"was given {len(given)} times")
    if window_s(given[0]) is None:
        raise wire.invalid_field("window", WINDOW_RULE)
    return given[0]


def _number(name: str, text: str, least: int, most: int) -> int:
    # Few and plain digits only: int() also accepts "1_0", "+1" and numbers of any length.
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and least <= int(text) <= most):
        raise wire.invalid_field(name, f"must be a whole number from {least} to {most}")
    return int(text)


def _field_names(text: str) -> list[str]:
    names = text.split(",")
    if len(names) > wire.FIELDS_LIMIT:
        raise wire.invalid_field("fields", f"must be at most {wire.FIELDS_LIMIT} names")
    for name in names:
        if not wire.valid_name(name):
            raise wire.invalid_field("fields", f"has a name that {wire.NAME_RULE}")
    return names


def idempotency_key(request: web.Request) -> str | None:
    """Return the Idempotency-Key, or None without one.

    Raises:
        Invalid: It is malformed, or given more than once.
    """
    given = request.headers.getall("Idempotency-Key", None)
    if given is None:
        return None
    if len(given) > 1:
        raise wire.invalid_field("Idempotency-Key", f"was given {len(given)} times")
    if not wire.valid_key(given[0]):
        raise wire.invalid_field("Idempotency-Key", "must be 8 to 64 characters of A-Z, a-z, 0-9, - and _")
    return given[0]


def is_balancer_key(request: web.Request, key: str | None) -> bool:
    """Whether the balancer made an Idempotency-Key from its request id, because the client sent none.

    A client cannot send such a key through the balancer: it learns the request's id from the answer at the earliest.
    """
    return key is not None and key == f"ngx-{request.headers.get('X-Request-Id')}"


def request_id(request: web.Request) -> str | None:
    """Return the balancer's id of this request, the same on every attempt; None without a valid one."""
    given = request.headers.get("X-Request-Id")
    return given if given is not None and wire.valid_key(given) else None


async def read_body(request: web.Request) -> bytes:
    """Read a JSON body within its limits of size and time.

    Raises:
        RequestError: The body is too large, too slow, encoded, of another type or broken off.
    """
    config = request.app[CONTEXT].config.server
    transfer_encoding = request.headers.get("Transfer-Encoding")
    is_encoded = transfer_encoding is not None and transfer_encoding.lower() != "chunked"
    if is_encoded or "Content-Encoding" in request.headers:
        raise UnsupportedBody("Encoded bodies are not accepted; send plain JSON.")
    if request.content_type != JSON:
        raise UnsupportedBody("The body must be sent as Content-Type: application/json.")
    if request.content_length is not None and request.content_length > config.body_limit_bytes:
        raise TooLarge(f"The body is over {config.body_limit_bytes} bytes.")
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await request.read()
    except TimeoutError:
        raise RequestTimedOut(f"The body did not arrive within {config.body_timeout_s} s.") from None
    except (web.RequestPayloadError, ConnectionError):
        # The client disconnected or sent bad chunks: no fault of the service.
        raise Malformed("The body broke off or is not framed as HTTP requires.") from None
