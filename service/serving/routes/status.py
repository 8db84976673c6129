"""What a replica says of itself: its model, its health, and the document of its API."""

from typing import Final

from aiohttp import web

from service.api import model_wire, wire
from service.api.docs_page import PAGE_HEADERS, page
from service.api.openapi import document
from service.api.reply import Reply
from service.candidates.candidate_client import SPACE_HEADER
from service.errors import Unavailable
from service.lists.request_user import known_features
from service.serving.http import request_inputs
from service.serving.replica.context import CONTEXT, not_ready_reason

# A new release or new API keys change these documents, so browsers revalidate them.
_REVALIDATE: Final = {"Cache-Control": "no-cache"}


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
