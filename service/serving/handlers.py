"""One coroutine per route: decode, look up, rank, record, encode.

Invariant: a handler calls `store.current()` once, and never waits for telemetry of a served list.
"""

import time
from functools import partial
from typing import Final
from urllib.parse import quote

import numpy as np
from aiohttp import web

from service.api import wire
from service.api.docs_page import PAGE_HEADERS, page
from service.api.list_bodies import RecommendationsRequest
from service.api.openapi import document
from service.api.reply import Reply
from service.errors import NotFound, Unavailable
from service.lists import pipeline
from service.lists.exploration import Exploration, explores
from service.lists.item_scores import ListUser
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, MadeList
from service.lists.reduced import REDUCED, reduced_ranking
from service.live.live_users import LiveUser
from service.models import scoring
from service.models.snapshot import ModelSnapshot
from service.security import security_log
from service.security.api_key import TENANT
from service.serving import request_inputs
from service.serving.acceptance import accepted, translated_telemetry_errors
from service.serving.batcher import Batcher
from service.serving.context import CONTEXT, ReplicaContext, not_ready_reason
from service.serving.feedback import FeedbackContext, feedback_events
from service.serving.known_users import model_user_id, user_row_of
from service.serving.list_inputs import list_request_of
from service.serving.ranked_list import RankedList
from telemetry.events import System
from telemetry.ids import rfc3339_ms, uuid7

# A new release or new API keys change these documents, so browsers revalidate them.
_REVALIDATE: Final = {"Cache-Control": "no-cache"}


async def recommend_plain(request: web.Request) -> web.Response:
    """GET /recommend/{user_id}, or /recommend?user_id=…: up to 20 item ids as one line of text."""
    user_id = request_inputs.read_id(request, "user_id")
    answer = await _recommend(request, ListRequest(wire.PLAIN_LIMIT, user_id))
    body = wire.plain_list([item["item_id"] for item in answer["items"]])
    response = Reply(body, "text/plain; charset=utf-8")
    if request.method != "HEAD":
        response.headers["X-Recommendation-Id"] = str(answer["recommendation_id"])
    return _mark_degraded(response, answer)


async def recommend_get(request: web.Request) -> web.Response:
    """GET /v1/recommendations/{user_id}?n=10, or /v1/recommendations?user_id=…: the same list as JSON."""
    user_id = request_inputs.read_id(request, "user_id", request_inputs.LIST_FIELDS)
    query = request_inputs.read_list_query(request)
    return _list_reply(await _recommend(request, ListRequest(user_id=user_id, **query._asdict())))


async def recommend_post(request: web.Request) -> web.Response:
    """POST /v1/recommendations: the same list with all that can be asked for."""
    request_inputs.require_query_fields(request, ())
    body = wire.decode(RecommendationsRequest, await request_inputs.read_body(request))
    return _list_reply(await _recommend(request, list_request_of(body)))


async def popular(request: web.Request) -> web.Response:
    """GET /v1/popular?n=10: the most popular items; recent interactions weigh more."""
    request_inputs.require_query_fields(request, request_inputs.LIST_FIELDS)
    query = request_inputs.read_list_query(request)
    return _list_reply(await _recommend(request, ListRequest(**query._asdict())))


async def similar(request: web.Request) -> web.Response:
    """GET /v1/items/{item_id}/similar?n=10, or /v1/items/similar?item_id=…: the nearest items."""
    item_id = request_inputs.read_id(request, "item_id", request_inputs.LIST_FIELDS)
    query = request_inputs.read_list_query(request)
    context = request.app[CONTEXT]
    if item_id not in context.store.current().items.row_of or context.items.is_removed(item_id):
        raise NotFound(f"The served model has no item {item_id!r}.")
    return _list_reply(await _recommend(request, ListRequest(similar_to=item_id, **query._asdict())))


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
    return accepted({"accepted": acceptance.accepted, "durability": acceptance.durability})


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
    manifest = request.app[CONTEXT].store.current().manifest
    return Reply(wire.encode({name: manifest.get(name) for name in wire.ServedModel.__annotations__}))


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: a model is loaded and warm, every background task runs, and the replica is not draining."""
    reason = not_ready_reason(request.app[CONTEXT])
    if reason is not None:
        raise Unavailable(reason, retry_after_s=1)
    return web.Response(text="ready\n")


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json: this API, machine-readable."""
    keyed = request.app[CONTEXT].gate.keyring is not None
    return web.Response(body=document(keyed=keyed), content_type=request_inputs.JSON, headers=_REVALIDATE)


async def docs(_request: web.Request) -> web.Response:
    """GET /docs: this API as a page that loads nothing from other sites."""
    headers = {**_REVALIDATE, **PAGE_HEADERS}
    return web.Response(body=page(), content_type="text/html", charset="utf-8", headers=headers)


async def _recommend(request: web.Request, list_request: ListRequest) -> wire.Recommendations:
    """Make a list and serve it."""
    started_s = time.perf_counter()
    context = request.app[CONTEXT]
    # Both before the first await, so that they are of one model.
    snapshot, catalogue = context.store.current(), context.store.catalogue
    recommendation_id = uuid7()
    list_request = _decided(context, list_request, recommendation_id)
    pseudonym = context.pseudonyms.pseudonym(list_request.user_id)
    user_row = None if list_request.user_id is None else user_row_of(context, snapshot, list_request.user_id)
    if pseudonym is None:
        live = None
    elif list_request.level is None:
        live = context.live.user(snapshot, pseudonym, user_row)
    else:
        live = context.live.unfolded(snapshot, pseudonym, user_row)
    user = _list_user(user_row, live)
    # In milliseconds, as the served event has it.
    now_s = int(time.time() * 1000) / 1000
    if list_request.is_plain:
        hidden = catalogue.unavailable_rows(now_s)
        made = await _plain_list(context.batcher, snapshot, list_request, user, hidden)
    else:
        list_model = ListModel(snapshot, catalogue, context.filter_masks)
        made = pipeline.make_list(list_model, list_request, user, now_s, recommendation_id)
    if list_request.deadline_ms is not None:
        context.level_costs.observe(list_request.level, time.perf_counter() - started_s)
    return _serve(
        request, RankedList(list_request, snapshot, made, catalogue, live), started_s, recommendation_id, now_s
    )


def _decided(context: ReplicaContext, list_request: ListRequest, recommendation_id: str) -> ListRequest:
    """Return a request with what the server decides: the level that its deadline leaves, and whether it explores."""
    if list_request.deadline_ms is not None and list_request.similar_to is None:
        list_request = list_request._replace(level=context.level_costs.level_for(list_request.deadline_ms / 1000))
    how = context.config.exploration
    if how.share and list_request.similar_to is None and explores(recommendation_id, how.share):
        exploration = Exploration(how.head, how.pool, how.temperature)
        list_request = list_request._replace(exploration=exploration)
    return list_request


def _list_user(user_row: int | None, live: LiveUser | None) -> ListUser | None:
    """Return the user of a list; None if neither the model nor the live state knows the user."""
    if live is None:
        return None if user_row is None else ListUser(user_row)
    return ListUser.from_history(user_row, live.representation, live.seen, live.history)


async def _plain_list(
    batcher: Batcher, snapshot: ModelSnapshot, list_request: ListRequest, user: ListUser | None, hidden: scoring.Rows
) -> MadeList:
    """Make a list that `is_plain`, together with those of other requests."""
    exclude = pipeline.rows_of(snapshot, list_request.exclude)
    if hidden.size:
        exclude = np.concatenate([exclude, hidden])
    if user is not None and user.seen_since.size:
        exclude = np.concatenate([exclude, user.seen_since])
    n, offset = list_request.n + 1, list_request.offset
    if user is not None and list_request.level in REDUCED:
        exclude = np.concatenate([exclude, user.seen_rows(snapshot)])
        ranking = reduced_ranking(snapshot, list_request.level, user.row, n, offset=offset, exclude=exclude)
    elif user is None or not user.is_known:
        ranking = scoring.popular(snapshot, n, offset=offset, exclude=exclude)
    else:
        # With a representation the row does not count.
        top_n = scoring.TopNRequest(user.row or 0, n, offset, exclude, user=user.representation)
        ranking = await batcher.personal(snapshot, top_n)
    return pipeline.plain_list(snapshot, list_request, user, hidden, ranking)


def _serve(
    request: web.Request, ranked: RankedList, started_s: float, recommendation_id: str, now_s: float
) -> wire.Recommendations:
    """Return the answer of a list and offer its event to telemetry; every list passes here."""
    context = request.app[CONTEXT]
    degraded = ranked.list_request.level or context.state.degraded
    answer = ranked.answer(recommendation_id, degraded)
    if request.method == "HEAD":
        # HEAD has no body, so no item was served.
        return answer
    context.producer.offer(
        ranked.event(
            recommendation_id,
            degraded,
            request_id=request_inputs.request_id(request) or recommendation_id,
            pseudonym=context.pseudonyms.pseudonym(ranked.list_request.user_id),
            served_at_s=now_s,
            latency_ms=round((time.perf_counter() - started_s) * 1000, 3),
        )
    )
    if degraded is not None:
        context.metrics.count_degraded(degraded)
    return answer


def _list_reply(answer: wire.Recommendations) -> web.Response:
    return _mark_degraded(Reply(wire.encode(answer)), answer)


def _mark_degraded(response: web.Response, answer: wire.Recommendations) -> web.Response:
    if answer["degraded"] is not None:
        response.headers["X-Degraded"] = quote(answer["degraded"])
    return response
