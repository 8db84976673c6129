"""What handlers read from a request: ids of its path, its query, its headers and its body, each checked.

Invariant: what is not as documented is an `Invalid` that names the field, or one of the refusals of a body; nothing
here answers or records anything.
"""

import asyncio
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from service.api import wire
from service.errors import Malformed, RequestTimedOut, TooLarge, UnsupportedBody
from service.serving.context import CONTEXT

JSON: Final = "application/json"


def identity(request: web.Request, name: str) -> str:
    """Return a user or item id: of the path, or of the query where the route's path has none.

    Raises:
        Invalid: It is none, or is not there once.
    """
    if name in request.match_info:
        value, raw = request.match_info[name], request.rel_url.raw_path
    else:
        given = request.query.getall(name, [])
        if len(given) != 1:
            raise wire.bad(name, f"was given {len(given)} times, and is needed once")
        value, raw = given[0], request.rel_url.raw_query_string
    if "%" in value and not _is_utf8(raw):
        # aiohttp leaves such bytes encoded, where they would pass for another id, one with per cent signs in it.
        raise wire.bad(name, "must be UTF-8 behind its percent-encoding")
    if not wire.valid_id(value):
        raise wire.bad(name, wire.ID_RULE)
    return value


def _is_utf8(raw: str) -> bool:
    try:
        unquote(raw, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def query(request: web.Request, known: tuple[str, ...]) -> None:
    """Refuse a query with other fields than these.

    Raises:
        Invalid: There is one.
    """
    if request.query_string:
        for name in request.query:
            if name not in known:
                # What is no UTF-8 cannot be said back.
                shown = name[:64].encode("utf-8", "replace").decode()
                raise wire.bad(shown, "is not a field of this query")


def number(request: web.Request, name: str, default: int, limit: int, beside: tuple[str, ...] = ()) -> int:
    """Return a number from 1 to a limit, of a query that has no other field than those beside it.

    Raises:
        Invalid: It is none, or there is another field.
    """
    if not request.query_string:
        return default
    query(request, (name, *beside))
    given = request.query.getall(name, [])
    if not given:
        return default
    if len(given) > 1:
        raise wire.bad(name, f"was given {len(given)} times")
    text = given[0]
    # Digits only, and few of them, before int() sees them: it takes "1_0", "+1" and numbers of any length.
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= limit):
        raise wire.bad(name, f"must be a whole number from 1 to {limit}")
    return int(text)


def idempotency_key(request: web.Request) -> str | None:
    """Return the Idempotency-Key, or None without one.

    Raises:
        Invalid: It is none that we take.
    """
    given = request.headers.getall("Idempotency-Key", None)
    if given is None:
        return None
    if len(given) > 1:
        raise wire.bad("Idempotency-Key", f"was given {len(given)} times")
    if not wire.valid_key(given[0]):
        raise wire.bad("Idempotency-Key", "must be 8 to 64 characters of A-Z, a-z, 0-9, - and _")
    return given[0]


def is_the_balancers(request: web.Request, key: str | None) -> bool:
    """Whether the balancer made an Idempotency-Key, as it does from its id of a request whose client sent none.

    A client cannot make such a key through the balancer: it could learn the request's id from the answer alone.
    """
    return key is not None and key == f"ngx-{request.headers.get('X-Request-Id')}"


def request_id(request: web.Request) -> str | None:
    """Return the balancer's id of this request, the same on every attempt at it."""
    given = request.headers.get("X-Request-Id")
    return given if given is not None and wire.valid_key(given) else None


async def body(request: web.Request) -> bytes:
    """Read a JSON body within its limits of size and time.

    Raises:
        RequestError: It is too large, too slow, encoded, of another type or broken off.
    """
    config = request.app[CONTEXT].config.server
    transfer = request.headers.get("Transfer-Encoding", "chunked")
    if "Content-Encoding" in request.headers or transfer.lower() != "chunked":
        raise UnsupportedBody("Encoded bodies are not taken; send plain JSON.")
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
        # The client left in the middle, or its chunks are none: nothing of ours to be alarmed about.
        raise Malformed("The body broke off or is not framed as HTTP asks for.") from None
