"""Where errors become answers: the one middleware around every route.

Invariant: what leaves is a response with a status of ours and, if it is not 2xx, a problem+json body (RFC 9457). A
fault of ours is answered 500 with no detail of the inside, is logged with its traceback, and never reaches aiohttp's
own handler.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import orjson
import structlog
from aiohttp import web

from service.errors import Malformed, MethodNotAllowed, NotFound, RequestError, RequestTimedOut, TooLarge
from service.parts import PARTS

_log = structlog.get_logger("recollect.boundary")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def boundary(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer a request, count it, and turn every error into problem+json."""
    parts = request.app[PARTS]
    started = time.perf_counter()
    response: web.StreamResponse
    try:
        response = await handler(request)
    except RequestError as error:
        response = problem(error)
    except web.HTTPException as error:
        response = problem(_translated(request, error))
    except Exception:  # noqa: BLE001 (the boundary is where the rest is caught)
        parts.metrics.faults.inc()
        _log.exception("request failed", method=request.method, path=request.path[:256])
        response = problem(RequestError("Something went wrong on our side; it has been logged."))
    if parts.state.draining or response.status == RequestTimedOut.status:
        response.force_close()
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "other"
    parts.metrics.route(route).answered(response.status, time.perf_counter() - started)
    return response


def problem(error: RequestError) -> web.Response:
    """Render an error as RFC 9457 describes."""
    response = web.Response(
        body=orjson.dumps(error.problem()), status=error.status, content_type="application/problem+json"
    )
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, MethodNotAllowed) and error.allow:
        response.headers["Allow"] = error.allow
    return response


def _translated(request: web.Request, error: web.HTTPException) -> RequestError:
    if isinstance(error, web.HTTPNotFound):
        return NotFound(f"There is nothing at {request.path[:256]}.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.method} is not possible here; {allow} is.", allow=allow)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("The body is larger than this service takes.")
    return Malformed(f"The request cannot be read: {error.reason}.")
