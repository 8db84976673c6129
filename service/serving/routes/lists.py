"""One coroutine per route: decode, look up, encode. `served_lists` makes and records lists."""

import time
from collections.abc import Iterable
from functools import partial
from typing import Final
from urllib.parse import quote

from aiohttp import web

from service.api import model_wire, wire
from service.api.docs_page import PAGE_HEADERS, page
from service.api.list_bodies import ManyRecommendationsRequest, RecommendationsRequest
from service.api.openapi import document
from service.api.reply import Reply
from service.candidates.candidate_client import SPACE_HEADER
from service.errors import Unavailable
from service.lists.list_request import ListRequest
from service.lists.request_user import known_features
from service.security import security_log
from service.security.api_key import TENANT
from service.serving.feedback.events import FeedbackContext, feedback_events
from service.serving.http import request_inputs
from service.serving.lists import served_lists
from service.serving.lists.inputs import list_request_of
from service.serving.replica.context import CONTEXT, ReplicaContext, not_ready_reason
from service.serving.replica.known_users import model_user_id, user_row_of
from service.serving.routes.acceptance import accepted, translated_telemetry_errors
from telemetry.events import System
from telemetry.ids import rfc3339_ms, uuid7

# A new release or new API keys change these documents, so browsers revalidate them.
_REVALIDATE: Final = {"Cache-Control": "no-cache"}


async def recommend_plain(request: web.Request) -> web.Response:
    """GET /recommend/{user_id}, or /recommend?user_id=…: up to 20 item ids as one line of text."""
    user_id = request_inputs.read_id(request, "user_id")
    answer = await served_lists.serve(request, ListRequest(wire.PLAIN_LIMIT, user_id))
    body = wire.plain_list([item["item_id"] for item in answer["items"]])
    response = Reply(body, "text/plain; charset=utf-8")
    if request.method != "HEAD":
        response.headers["X-Recommendation-Id"] = str(answer["recommendation_id"])
    return _mark_degraded(response, answer)


async def recommend_get(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=10, or /v1/recommendations?user_id=…: the same list as JSON."""
    user_id = request_inputs.read_id(request, "user_id", request_inputs.LIST_FIELDS)
    query = request_inputs.read_list_query(request)
    return _list_reply(await served_lists.serve(request, query.request(user_id)))


async def recommend_post(request: web.Request) -> web.Response:
    """POST /v1/recommendations: the same list with all that can be asked for."""
    request_inputs.require_query_fields(request, ())
    body = wire.decode(RecommendationsRequest, await request_inputs.read_body(request))
    return _list_reply(await served_lists.serve(request, list_request_of(body)))


async def recommend_many(request: web.Request) -> web.Response:
    """POST /v1/recommendations/batch: several lists in one request, all of them or none."""
    request_inputs.require_query_fields(request, ())
    body = wire.decode(ManyRecommendationsRequest, await request_inputs.read_body(request))
    lists = await served_lists.serve_all(request, [list_request_of(one) for one in body.requests])
    return Reply(wire.encode({"lists": lists}))


async def popular(request: web.Request) -> web.Response:
    """GET /v1/popular?n=10&window=7d: the most popular items, of all time or within a window."""
    request_inputs.require_query_fields(request, (*request_inputs.LIST_FIELDS, "window"))
    query = request_inputs.read_list_query(request)
    window = request_inputs.read_window(request)
    return _list_reply(await served_lists.serve(request, query.request(window=window)))


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=10, or /v1/items/similar?item_id=…: the nearest items."""
    item_id = request_inputs.read_id(request, "item_id", request_inputs.LIST_FIELDS)
    query = request_inputs.read_list_query(request)
    return _list_reply(await served_lists.serve(request, query.request(similar_to=item_id)))


async def events(request: web.Request) -> web.Response:
    """POST /v1/events: accept feedback, all of it or none."""
    context = request.app[CONTEXT]
    request_inputs.require_query_fields(request, ())
    key = request_inputs.idempotency_key(request)
    raw = await request_inputs.read_body(request)
    body = wire.decode(wire.EventsRequest, raw)
    snapshot = context.store.current() if context.store.version is not None else None
    feedback_context = FeedbackContext(
        time.time(),
        request_inputs.request_id(request) or uuid7(),
        key,
        None if snapshot is None else snapshot.items.row_of,
        context.config.models.declared_scale or (None if snapshot is None else snapshot.rating_scale),
    )
    feedback = feedback_events(body.events, feedback_context, context.pseudonyms, context.config.events)
    client_key = None if request_inputs.is_balancer_key(request, key) else key
    with context.idempotency_keys.attempt(client_key, raw), translated_telemetry_errors():
        acceptance = await context.producer.accept(feedback, partial(context.live.accept, feedback))
    if snapshot is not None and context.store.current().computes_users_slowly:
        _compute_ahead(context, dict.fromkeys(row.user_id for row in body.events))
    return accepted({"accepted": acceptance.accepted, "durability": acceptance.durability})


def _compute_ahead(context: ReplicaContext, user_ids: Iterable[str]) -> None:
    """Begin to compute users whose events have come, so that their next lists need not wait."""
    snapshot = context.store.current()
    for user_id in user_ids:
        user_row = user_row_of(context, snapshot, user_id)
        context.live.compute_ahead(snapshot, context.pseudonyms.pseudonym(user_id), user_row)


async def erase_user(request: web.Request) -> web.Response:
    """DELETE /v1/users/{user_id}, or /v1/users?user_id=…: erase a user, on this replica at once, elsewhere soon."""
    context = request.app[CONTEXT]
    user_id = request_inputs.read_id(request, "user_id")
    erase = System(
        event_id=uuid7(),
        tenant=TENANT,
        client_time=None,
        received_at=rfc3339_ms(time.time()),
        kind="erase",
        user_id=context.pseudonyms.pseudonym(user_id),
    )
    # The security log first, so that no erase is carried out without an entry.
    await _log_erase(request, erase)
    with translated_telemetry_errors():
        acceptance = await context.producer.accept([erase], lambda _first: context.live.erase(erase))
    if context.store.version is not None:
        context.store.erase_user(model_user_id(context, context.store.current(), user_id))
    return accepted(
        {
            "erase_id": erase.event_id,
            "user_id": user_id,
            "requested_at": erase.received_at,
            "durability": acceptance.durability,
        }
    )


async def _log_erase(request: web.Request, erase: System) -> None:
    """Enter an erase in the security log.

    Raises:
        Unavailable: The log cannot be written.
    """
    context = request.app[CONTEXT]
    entry = security_log.new_entry(
        "erase",
        by=f"replica-{context.producer.slot}",
        # The boundary has admitted the request; this look-up returns the id of its key.
        key=context.gate.admit(request.headers, "erase"),
        erase_id=erase.event_id,
        request_id=request_inputs.request_id(request),
    )
    try:
        await context.security_log.record(entry)
    except (OSError, TimeoutError):
        raise Unavailable("The security log cannot be written at the moment.", retry_after_s=1) from None


async def model(request: web.Request) -> web.Response:
    """GET /v1/model: the served model."""
    request_inputs.require_query_fields(request, ())
    store = request.app[CONTEXT].store
    snapshot, catalogue = store.current(), store.catalogue
    published = {name: snapshot.manifest.get(name) for name in model_wire.ServedModel.__annotations__}
    own = {"embedding_space": snapshot.embedding_space, "user_features": known_features(snapshot, catalogue)}
    return Reply(wire.encode({**published, **own}))


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: a model is loaded and warm, every background task runs, and the replica is not draining."""
    context = request.app[CONTEXT]
    reason = not_ready_reason(context)
    if reason is not None:
        raise Unavailable(reason, retry_after_s=1)
    space = context.store.current().embedding_space
    return web.Response(text="ready\n", headers=None if space is None else {SPACE_HEADER: space})


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json: this API, machine-readable."""
    keyed = request.app[CONTEXT].gate.keyring is not None
    return web.Response(body=document(keyed=keyed), content_type=request_inputs.JSON, headers=_REVALIDATE)


async def docs(_request: web.Request) -> web.Response:
    """GET /docs: this API as a page that loads nothing from other sites."""
    headers = {**_REVALIDATE, **PAGE_HEADERS}
    return web.Response(body=page(), content_type="text/html", charset="utf-8", headers=headers)


def _list_reply(answer: wire.Recommendations) -> web.Response:
    return _mark_degraded(Reply(wire.encode(answer)), answer)


def _mark_degraded(response: web.Response, answer: wire.Recommendations) -> web.Response:
    if answer["degraded"] is not None:
        response.headers["X-Degraded"] = quote(answer["degraded"])
    return response
