"""The route of feedback: POST /v1/events."""

import time
from collections.abc import Iterable
from functools import partial

from aiohttp import web

from service.api import wire
from service.serving.feedback.events import FeedbackContext, feedback_events
from service.serving.http import request_inputs
from service.serving.replica.context import CONTEXT, ReplicaContext
from service.serving.replica.known_users import user_row_of
from service.serving.routes.acceptance import accepted, translated_telemetry_errors
from telemetry.ids import uuid7


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
