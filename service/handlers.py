"""One coroutine per route: decode, look up, rank, emit, encode.

Invariant: a handler takes `store.current()` once, and never waits for telemetry of a served list.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, unquote

import numpy as np
from aiohttp import web

from service import wire
from service.errors import Invalid, Malformed, NotFound, RequestTimedOut, TooLarge, Unavailable, UnsupportedBody
from service.feedback import TENANT, Reception, recorded
from service.models import scoring
from service.models.snapshot import ModelSnapshot
from service.openapi import document, page
from service.parts import PARTS, Parts, unready
from service.reply import Reply
from service.security import log
from telemetry.errors import BadEventError, SpoolFull
from telemetry.events import Served, ServedItem, System
from telemetry.ids import rfc3339_ms, uuid7

_JSON: Final = "application/json"


async def recommend_plain(request: web.Request) -> web.Response:
    """GET /recommend/{user_id}: up to 20 item ids as one line of text."""
    _query(request, ())
    answer = await _recommend(request, _path_id(request, "user_id"), wire.PLAIN_LIMIT)
    body = wire.plain_list([item["item_id"] for item in answer["items"]])
    response = Reply(body, "text/plain; charset=utf-8")
    response.headers["X-Recommendation-Id"] = str(answer["recommendation_id"])
    return _marked(response, answer)


async def recommend_get(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=10: the same list as JSON."""
    n = _number(request, "n", wire.N_DEFAULT, wire.N_LIMIT)
    answer = await _recommend(request, _path_id(request, "user_id"), n)
    return _marked(_json(answer), answer)


async def recommend_post(request: web.Request) -> web.Response:
    """POST /v1/recommendations: the same with offset, exclude and include."""
    _query(request, ())
    wanted = wire.decode(wire.RecommendationsRequest, await _body(request))
    answer = await _recommend(request, wanted.user_id, wanted.n, wanted.offset, wanted.exclude, wanted.include)
    return _marked(_json(answer), answer)


async def popular(request: web.Request) -> web.Response:
    """GET /v1/popular?n=10: what everybody likes, recent interactions counting more."""
    n = _number(request, "n", wire.N_DEFAULT, wire.N_LIMIT)
    answer = await _recommend(request, None, n)
    return _marked(_json(answer), answer)


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=10: the nearest items, see `scoring.similar`."""
    started = time.perf_counter()
    n = _number(request, "n", wire.N_DEFAULT, wire.N_LIMIT)
    item_id = _path_id(request, "item_id")
    snapshot = request.app[PARTS].store.current()
    row = snapshot.items.row_of.get(item_id)
    if row is None:
        raise NotFound(f"The served model knows no item {item_id!r}.")
    ranking = scoring.similar(snapshot, row, n)
    answer = _served(request, snapshot, None, n, 0, ranking, "similar", f"similar:{item_id}", started)
    return _marked(_json(answer), answer)


async def events(request: web.Request) -> web.Response:
    """POST /v1/events: take in what users did, all of it or nothing."""
    parts = request.app[PARTS]
    _query(request, ())
    key = request.headers.get("Idempotency-Key")
    if key is not None and not wire.valid_key(key):
        raise Invalid("Idempotency-Key: must be 8 to 64 characters of A-Z, a-z, 0-9, - and _.")
    raw = await _body(request)
    body = wire.decode(wire.EventsRequest, raw)
    known_items = parts.store.current().items.row_of if parts.store.version is not None else None
    reception = Reception(time.time(), _request_id(request) or uuid7(), key, known_items)
    feedback = recorded(body.events, reception, parts.pseudonyms, parts.config.events)
    with parts.keys.attempt(key, raw), _refusals():
        acceptance = await parts.producer.accept(feedback)
    answer: wire.Accepted = {"accepted": acceptance.accepted, "durability": acceptance.durability}
    return web.Response(body=wire.encode(answer), status=202, content_type=_JSON)


async def forget(request: web.Request) -> web.Response:
    """DELETE /v1/users/{user_id}: forget a user, here at once and everywhere once the consumer reads of it."""
    parts = request.app[PARTS]
    _query(request, ())
    user_id = _path_id(request, "user_id")
    order = System(
        event_id=uuid7(),
        tenant=TENANT,
        client_time=None,
        received_at=rfc3339_ms(time.time()),
        kind="erase",
        user_id=parts.pseudonyms.of(user_id),
    )
    await _put_down(request, order)
    with _refusals():
        acceptance = await parts.producer.accept_any([order])
    if parts.store.version is not None:
        parts.store.forget(_known_as(parts, parts.store.current(), user_id))
    answer: wire.Erasure = {
        "erase_id": order.event_id,
        "user_id": user_id,
        "requested_at": order.received_at,
        "durability": acceptance.durability,
    }
    return web.Response(body=wire.encode(answer), status=202, content_type=_JSON)


async def _put_down(request: web.Request, order: System) -> None:
    """Enter an erase in the security log, before it is recorded: one that is carried out is always accounted for.

    Raises:
        Unavailable: it cannot be entered.
    """
    parts = request.app[PARTS]
    key = parts.gate.admit(request.headers, "erase")
    by = f"replica-{parts.producer.slot}"
    try:
        await parts.security.record(
            log.entry("erase", by=by, key=key, erase_id=order.event_id, request_id=_request_id(request))
        )
    except (OSError, TimeoutError):
        raise Unavailable("This cannot be entered in the security log at the moment.", retry_after_s=1) from None


async def model(request: web.Request) -> web.Response:
    """GET /v1/model: what is being served."""
    _query(request, ())
    snapshot = request.app[PARTS].store.current()
    manifest = snapshot.manifest
    shown = (
        "version",
        "algorithm",
        "settings",
        "measures",
        "data",
        "created",
        "data_as_of",
        "n_users",
        "n_items",
        "n_factors",
    )
    return _json({name: manifest.get(name) for name in shown})


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: a model is loaded and warm, every background task lives, and no stop was asked for."""
    reason = unready(request.app[PARTS])
    if reason is not None:
        raise Unavailable(reason, retry_after_s=1)
    return web.Response(text="ready\n")


async def openapi(_request: web.Request) -> web.Response:
    """GET /openapi.json: this API, machine-readable."""
    return web.Response(body=document(), content_type=_JSON)


async def docs(_request: web.Request) -> web.Response:
    """GET /docs: this API, for people; needs no other site."""
    return web.Response(body=page(), content_type="text/html", charset="utf-8")


async def _recommend(
    request: web.Request,
    user_id: str | None,
    n: int,
    offset: int = 0,
    exclude: list[str] | None = None,
    include: list[str] | None = None,
) -> wire.Recommendations:
    """Rank the list that a request wants and serve it."""
    started = time.perf_counter()
    parts = request.app[PARTS]
    snapshot = parts.store.current()
    excluded = _rows(snapshot, exclude) if exclude else scoring.NO_ROWS
    included = None if include is None else np.unique(_rows(snapshot, include))
    user_row = None if user_id is None else _user_row(parts, snapshot, user_id)
    if user_row is None:
        ranking = scoring.popular(snapshot, n, offset=offset, exclude=excluded, include=included)
        source: wire.Source = "popular"
    else:
        wanted = scoring.Wanted(user_row, n, offset, excluded)
        if included is None:
            ranking = await parts.batcher.personal(snapshot, wanted)
        else:
            ranking = scoring.personal_among(snapshot, wanted, included)
        source = "personal"
    return _served(request, snapshot, user_id, n, offset, ranking, source, _candidate_set(exclude, include), started)


def _user_row(parts: Parts, snapshot: ModelSnapshot, user_id: str) -> int | None:
    """Find a user in the served model; None for whom it does not know, or is to forget."""
    name = _known_as(parts, snapshot, user_id)
    return None if name in parts.store.forgotten else snapshot.users.row_of.get(name)


def _known_as(parts: Parts, snapshot: ModelSnapshot, user_id: str) -> str:
    """Return what the served model calls a user, if it knows them."""
    if parts.pseudonyms.active and user_id not in snapshot.users.row_of:
        # A model that learnt from archived events calls users as telemetry does.
        return parts.pseudonyms.of(user_id)
    return user_id


def _served(
    request: web.Request,
    snapshot: ModelSnapshot,
    user_id: str | None,
    n: int,
    offset: int,
    ranking: scoring.Ranking,
    source: wire.Source,
    candidate_set: str,
    started: float,
) -> wire.Recommendations:
    """Make the answer of a ranking and hand its event to telemetry; every list that leaves passes here."""
    parts = request.app[PARTS]
    degraded = parts.state.degraded
    recommendation_id = uuid7()
    items: list[wire.Item] = []
    shown: list[ServedItem] = []
    id_of = snapshot.items.id_of
    places = zip(ranking.rows.tolist(), ranking.scores.round(6).tolist(), _sources(ranking, source), strict=True)
    for position, (row, score, from_) in enumerate(places, offset):
        item_id = id_of[row]
        items.append({"item_id": item_id, "score": score, "source": from_})
        # No policy draws at random yet: every shown item was certain to be shown where it was.
        shown.append({"item_id": item_id, "position": position, "score": score, "source": from_, "propensity": 1.0})
    parts.producer.offer(
        Served(
            event_id=recommendation_id,
            tenant=TENANT,
            client_time=None,
            received_at=rfc3339_ms(time.time()),
            request_id=_request_id(request) or recommendation_id,
            recommendation_id=recommendation_id,
            user_id=parts.pseudonyms.of(user_id),
            model=snapshot.version,
            variant=None,
            candidate_set=candidate_set,
            state_watermark=None,
            latency_ms=round((time.perf_counter() - started) * 1000, 3),
            degraded=degraded,
            items=shown,
        )
    )
    if degraded is not None:
        parts.metrics.degraded(degraded)
    return {
        "recommendation_id": recommendation_id,
        "user_id": user_id,
        "model": snapshot.version,
        "items": items,
        "freshness": {"events_applied": 0, "as_of": snapshot.data_as_of},
        "degraded": degraded,
        "shortfall": wire.shortfall(n, len(items)),
    }


def _sources(ranking: scoring.Ranking, source: wire.Source) -> list[wire.Source]:
    """Name where each item comes from: one of a personal list that nothing personal put there is popular."""
    if ranking.is_personal is None:
        return [source] * ranking.rows.size
    return [source if is_personal else "popular" for is_personal in ranking.is_personal.tolist()]


def _candidate_set(exclude: list[str] | None, include: list[str] | None) -> str:
    """Name what was ranked: the catalogue or the request's own items, and what was taken out, by count and CRC-32."""
    name = "catalogue" if include is None else f"include:{_digest(include)}"
    return f"{name};exclude:{_digest(exclude)}" if exclude else name


def _digest(ids: list[str]) -> str:
    return f"{len(ids)}:{zlib.crc32(chr(0).join(ids).encode()):08x}"


def _rows(snapshot: ModelSnapshot, ids: list[str]) -> scoring.Rows:
    row_of = snapshot.items.row_of
    return np.array([row_of[i] for i in ids if i in row_of], dtype=np.int64)


@contextmanager
def _refusals() -> Iterator[None]:
    """Answer a refusal of telemetry's as one of ours."""
    try:
        yield
    except BadEventError as error:
        raise Invalid(f"An event cannot be recorded: {error}.") from None
    except SpoolFull as full:
        raise Unavailable(
            "This cannot be recorded at the moment; it is safe to try again.",
            retry_after_s=max(1, round(full.retry_after_s)),
        ) from None


def _json(value: Any) -> web.Response:
    return Reply(wire.encode(value))


def _marked(response: web.Response, answer: wire.Recommendations) -> web.Response:
    if answer["degraded"] is not None:
        response.headers["X-Degraded"] = quote(answer["degraded"])
    return response


def _path_id(request: web.Request, name: str) -> str:
    value = request.match_info[name]
    if "%" in value and not _is_utf8(request.rel_url.raw_path):
        # aiohttp leaves such bytes encoded, where they would pass for another id, one with per cent signs in it.
        raise Invalid(f"{name}: must be UTF-8 behind its percent-encoding.")
    if not wire.valid_id(value):
        raise Invalid(f"{name}: must be 1 to 128 characters without control characters.")
    return value


def _is_utf8(raw_path: str) -> bool:
    try:
        unquote(raw_path, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def _query(request: web.Request, known: tuple[str, ...]) -> None:
    if request.query_string:
        for name in request.query:
            if name not in known:
                raise Invalid(f"The query has an unknown field {name[:64]!r}.")


def _number(request: web.Request, name: str, default: int, limit: int) -> int:
    if not request.query_string:
        return default
    _query(request, (name,))
    given = request.query.getall(name, [])
    if not given:
        return default
    if len(given) > 1:
        raise Invalid(f"{name}: was given {len(given)} times.")
    text = given[0]
    # Digits only, and few of them, before int() sees them: it takes "1_0", "+1" and numbers of any length.
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= limit):
        raise Invalid(f"{name}: must be a whole number from 1 to {limit}.")
    return int(text)


def _request_id(request: web.Request) -> str | None:
    """Return the balancer's id of this request, the same on every attempt at it."""
    given = request.headers.get("X-Request-Id")
    return given if given is not None and wire.valid_key(given) else None


async def _body(request: web.Request) -> bytes:
    """Read a JSON body within its limits of size and time."""
    config = request.app[PARTS].config.server
    transfer = request.headers.get("Transfer-Encoding", "chunked")
    if "Content-Encoding" in request.headers or transfer.lower() != "chunked":
        raise UnsupportedBody("Encoded bodies are not taken; send plain JSON.")
    if request.content_type != _JSON:
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
