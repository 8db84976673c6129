"""One coroutine per route: decode, look up, rank, emit, encode.

Invariant: a handler takes `store.current()` once, and never waits for telemetry of a served list.
"""

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from aiohttp import web

from service.api import wire
from service.api.docs_page import PAGE_HEADERS, page
from service.api.openapi import document
from service.api.reply import Reply
from service.errors import NotFound, Unavailable
from service.models import scoring
from service.models.snapshot import ModelSnapshot
from service.security import security_log
from service.serving import request_inputs
from service.serving.context import CONTEXT, ReplicaContext, unready
from service.serving.feedback import TENANT, Reception, recorded
from telemetry.errors import BadEventError, SpoolFull
from telemetry.events import Served, System
from telemetry.ids import rfc3339_ms, uuid7
from telemetry.served_items import Items, one_or_each

# A browser asks anew each time: another release, or keys, change what these say.
_CHECKED_AGAIN: Final = {"Cache-Control": "no-cache"}


async def recommend_plain(request: web.Request) -> web.Response:
    """GET /recommend/{user_id}, or /recommend?user_id=…: up to 20 item ids as one line of text."""
    request_inputs.query(request, _queried(request, "user_id"))
    answer = await _recommend(request, request_inputs.identity(request, "user_id"), wire.PLAIN_LIMIT)
    body = wire.plain_list([item["item_id"] for item in answer["items"]])
    response = Reply(body, "text/plain; charset=utf-8")
    if request.method != "HEAD":
        response.headers["X-Recommendation-Id"] = str(answer["recommendation_id"])
    return _marked(response, answer)


async def recommend_get(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=10, or /v1/recommendations?user_id=…: the same list as JSON."""
    n = request_inputs.number(request, "n", wire.N_DEFAULT, wire.N_LIMIT, _queried(request, "user_id"))
    answer = await _recommend(request, request_inputs.identity(request, "user_id"), n)
    return _marked(_json(answer), answer)


async def recommend_post(request: web.Request) -> web.Response:
    """POST /v1/recommendations: the same with offset, exclude and include."""
    request_inputs.query(request, ())
    wanted = wire.decode(wire.RecommendationsRequest, await request_inputs.body(request))
    answer = await _recommend(request, wanted.user_id, wanted.n, wanted.offset, wanted.exclude, wanted.include)
    return _marked(_json(answer), answer)


async def popular(request: web.Request) -> web.Response:
    """GET /v1/popular?n=10: the most popular items, recent interactions counting more."""
    n = request_inputs.number(request, "n", wire.N_DEFAULT, wire.N_LIMIT)
    answer = await _recommend(request, None, n)
    return _marked(_json(answer), answer)


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=10, or /v1/items/similar?item_id=…: the nearest, see `scoring.similar`."""
    started = time.perf_counter()
    n = request_inputs.number(request, "n", wire.N_DEFAULT, wire.N_LIMIT, _queried(request, "item_id"))
    item_id = request_inputs.identity(request, "item_id")
    snapshot = request.app[CONTEXT].store.current()
    row = snapshot.items.row_of.get(item_id)
    if row is None:
        raise NotFound(f"The served model knows no item {item_id!r}.")
    ranking = scoring.similar(snapshot, row, n)
    answer = _served(request, snapshot, None, n, 0, ranking, "similar", f"similar:{item_id}", started)
    return _marked(_json(answer), answer)


async def events(request: web.Request) -> web.Response:
    """POST /v1/events: take in what users did, all of it or nothing."""
    context = request.app[CONTEXT]
    request_inputs.query(request, ())
    key = request_inputs.idempotency_key(request)
    raw = await request_inputs.body(request)
    body = wire.decode(wire.EventsRequest, raw)
    served = context.store.current() if context.store.version is not None else None
    reception = Reception(
        time.time(),
        request_inputs.request_id(request) or uuid7(),
        key,
        None if served is None else served.items.row_of,
        context.config.models.declared_scale or (None if served is None else served.rating_scale),
    )
    feedback = recorded(body.events, reception, context.pseudonyms, context.config.events)
    with context.keys.attempt(None if request_inputs.is_the_balancers(request, key) else key, raw), _refusals():
        acceptance = await context.producer.accept(feedback)
    answer: wire.Accepted = {"accepted": acceptance.accepted, "durability": acceptance.durability}
    return web.Response(body=wire.encode(answer), status=202, content_type=request_inputs.JSON)


async def forget(request: web.Request) -> web.Response:
    """DELETE /v1/users/{user_id}, or /v1/users?user_id=…: forget a user, here at once and soon everywhere."""
    context = request.app[CONTEXT]
    request_inputs.query(request, _queried(request, "user_id"))
    user_id = request_inputs.identity(request, "user_id")
    order = System(
        event_id=uuid7(),
        tenant=TENANT,
        client_time=None,
        received_at=rfc3339_ms(time.time()),
        kind="erase",
        user_id=context.pseudonyms.pseudonym(user_id),
    )
    await _put_down(request, order)
    with _refusals():
        acceptance = await context.producer.accept([order])
    if context.store.version is not None:
        context.store.forget(_known_as(context, context.store.current(), user_id))
    answer: wire.Erasure = {
        "erase_id": order.event_id,
        "user_id": user_id,
        "requested_at": order.received_at,
        "durability": acceptance.durability,
    }
    return web.Response(body=wire.encode(answer), status=202, content_type=request_inputs.JSON)


async def _put_down(request: web.Request, order: System) -> None:
    """Enter an erase in the security log, before it is recorded: one that is carried out is always accounted for.

    Raises:
        Unavailable: It cannot be entered.
    """
    context = request.app[CONTEXT]
    key = context.gate.admit(request.headers, "erase")
    by = f"replica-{context.producer.slot}"
    try:
        await context.security.record(
            security_log.entry(
                "erase", by=by, key=key, erase_id=order.event_id, request_id=request_inputs.request_id(request)
            )
        )
    except (OSError, TimeoutError):
        raise Unavailable("This cannot be entered in the security log at the moment.", retry_after_s=1) from None


async def model(request: web.Request) -> web.Response:
    """GET /v1/model: what is being served."""
    request_inputs.query(request, ())
    snapshot = request.app[CONTEXT].store.current()
    return _json({name: snapshot.manifest.get(name) for name in wire.Model.__annotations__})


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: a model is loaded and warm, every background task lives, and no stop was asked for."""
    reason = unready(request.app[CONTEXT])
    if reason is not None:
        raise Unavailable(reason, retry_after_s=1)
    return web.Response(text="ready\n")


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json: this API, machine-readable."""
    keyed = request.app[CONTEXT].gate.ring is not None
    return web.Response(body=document(keyed=keyed), content_type=request_inputs.JSON, headers=_CHECKED_AGAIN)


async def docs(_request: web.Request) -> web.Response:
    """GET /docs: this API, for people; needs no other site."""
    headers = {**_CHECKED_AGAIN, **PAGE_HEADERS}
    return web.Response(body=page(), content_type="text/html", charset="utf-8", headers=headers)


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
    context = request.app[CONTEXT]
    snapshot = context.store.current()
    excluded = _rows(snapshot, exclude) if exclude else scoring.NO_ROWS
    included = None if include is None else np.unique(_rows(snapshot, include))
    user_row = None if user_id is None else _user_row(context, snapshot, user_id)
    if user_row is None:
        ranking = scoring.popular(snapshot, n, offset=offset, exclude=excluded, include=included)
        source: wire.Source = "popular"
    else:
        wanted = scoring.TopNRequest(user_row, n, offset, excluded)
        if included is None:
            ranking = await context.batcher.personal(snapshot, wanted)
        else:
            ranking = scoring.personal_among(snapshot, wanted, included)
        source = "personal"
    return _served(request, snapshot, user_id, n, offset, ranking, source, _candidate_set(exclude, include), started)


def _queried(request: web.Request, name: str) -> tuple[str, ...]:
    """Return the query's fields for an id: none where the path has it."""
    return () if name in request.match_info else (name,)


def _user_row(context: ReplicaContext, snapshot: ModelSnapshot, user_id: str) -> int | None:
    """Find a user in the served model; None for whom it does not know, or is to forget."""
    name = _known_as(context, snapshot, user_id)
    return None if name in context.store.forgotten else snapshot.users.row_of.get(name)


def _known_as(context: ReplicaContext, snapshot: ModelSnapshot, user_id: str) -> str:
    """Return what the served model calls a user, if it knows them."""
    if context.pseudonyms.active and user_id not in snapshot.users.row_of:
        # A model that learnt from archived events calls users as telemetry does.
        return context.pseudonyms.pseudonym(user_id)
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
    context = request.app[CONTEXT]
    degraded = context.state.degraded
    recommendation_id = uuid7()
    items: list[wire.Item] = []
    id_of = snapshot.items.id_of
    ids = [id_of[row] for row in ranking.rows.tolist()]
    scores = ranking.scores.round(6).tolist()
    sources = _sources(ranking, source)
    for item_id, score, from_ in zip(ids, scores, sources, strict=True):
        items.append({"item_id": item_id, "score": score, "source": from_})
    if request.method == "HEAD":
        # Nothing of it is shown, so that nothing was served.
        return _answer(snapshot, user_id, recommendation_id, items, degraded, n)
    context.producer.offer(
        Served(
            event_id=recommendation_id,
            tenant=TENANT,
            client_time=None,
            received_at=rfc3339_ms(time.time()),
            request_id=request_inputs.request_id(request) or recommendation_id,
            recommendation_id=recommendation_id,
            user_id=context.pseudonyms.pseudonym(user_id),
            model=snapshot.version,
            candidate_set=candidate_set,
            latency_ms=round((time.perf_counter() - started) * 1000, 3),
            degraded=degraded,
            # No policy draws at random yet: every shown item was certain to be shown where it was.
            items=Items(ids, scores, offset, one_or_each(sources), 1.0),
        )
    )
    if degraded is not None:
        context.metrics.degraded(degraded)
    return _answer(snapshot, user_id, recommendation_id, items, degraded, n)


def _answer(
    snapshot: ModelSnapshot,
    user_id: str | None,
    recommendation_id: str,
    items: list[wire.Item],
    degraded: wire.DegradationLevel | None,
    n: int,
) -> wire.Recommendations:
    return {
        "recommendation_id": recommendation_id,
        "user_id": user_id,
        "model": snapshot.version,
        "items": items,
        "freshness": {"as_of": snapshot.data_as_of},
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
        raise wire.bad("events", f"cannot be recorded: {error}") from None
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
