"""The boundary around every handler: API keys, errors as answers, counters.

Invariant: every answer that is not 2xx has a problem+json body (RFC 9457). An internal error is answered 500 without
detail, logged with its traceback but without data of the request, and never reaches aiohttp's own handler.
"""

import time
import traceback
from collections.abc import Awaitable, Callable, Iterable

import structlog
from aiohttp import web

from service.api import wire
from service.api.reply import COMMON_HEADERS, Reply
from service.errors import (
    Forbidden,
    Malformed,
    MethodNotAllowed,
    NoModel,
    NoModelHere,
    NotFound,
    RequestError,
    RequestTimedOut,
    TooLarge,
    Unauthorized,
)
from service.security.api_key import Scope
from service.serving.replica.context import ReplicaContext

_log = structlog.get_logger("recollect.boundary")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def with_boundary(context: ReplicaContext, route: str, handler: Handler, scope: Scope | None = None) -> Handler:
    """Wrap a handler in the boundary.

    `route` labels the metrics: a pattern without ids, so that labels are few. A route without a scope needs no API key.
    """
    gate = context.gate
    route_metrics = context.metrics.route(route)
    state = context.state

    async def answer(request: web.Request) -> web.StreamResponse:
        started_s = time.perf_counter()
        response: web.StreamResponse
        try:
            if scope is not None:
                gate.admit(request.headers, scope)
            response = await handler(request)
        except NoModel as error:
            response = problem_response(NoModelHere() if "X-Recollect-Balancer" in request.headers else error)
        except RequestError as error:
            response = problem_response(error)
        except web.HTTPException as error:
            response = problem_response(request_error_of(error))
        except Exception as error:  # noqa: BLE001 (every other error is an internal error)
            context.metrics.faults.inc()
            # Neither path nor message: both may hold a user's id.
            _log.error("request failed", method=request.method, route=route, exception=traceback_of(error))
            response = problem_response(internal_error())
        if not isinstance(response, Reply):
            for name, value in COMMON_HEADERS.items():
                response.headers.setdefault(name, value)
        if state.draining or response.status == RequestTimedOut.status:
            response.force_close()
        route_metrics.count_answer(response.status, time.perf_counter() - started_s)
        return response

    return answer


async def not_found(request: web.Request) -> web.StreamResponse:
    """Answer a request that no route matches."""
    raise NotFound(f"There is nothing at {request.path[:256]}; /docs describes the routes.")


def not_allowed(methods_of: Callable[[str], Iterable[str]]) -> Handler:
    """Return the handler for the methods that a path does not have; `methods_of` returns those that it has."""

    async def answer(request: web.Request) -> web.StreamResponse:
        allow = ", ".join(sorted(methods_of(request.path)))
        raise MethodNotAllowed(f"{request.method} is not allowed here; {allow} is.", allow=allow)

    return answer


def problem_response(error: RequestError) -> web.Response:
    """Render an error as problem+json (RFC 9457)."""
    response = web.Response(
        body=wire.encode(error.problem()),
        status=error.status,
        content_type="application/problem+json",
        headers=COMMON_HEADERS,
    )
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, MethodNotAllowed) and error.allow:
        response.headers["Allow"] = error.allow
    if isinstance(error, Unauthorized | Forbidden) and error.challenge:
        response.headers["WWW-Authenticate"] = error.challenge
    return response


def traceback_of(error: BaseException) -> str:
    """Return the traceback and type of an error and its causes, without messages, which may quote a caller."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        parts.append("".join([*traceback.format_tb(cause.__traceback__), type(cause).__qualname__]))
        cause = cause.__cause__ or cause.__context__
    return "\nraised from:\n".join(parts)


def internal_error() -> RequestError:
    """Return the error for a request that failed; its cause is only in the application log."""
    return RequestError("The service failed to answer this request; the cause has been logged.")


def request_error_of(error: web.HTTPException) -> RequestError:
    """Return the `RequestError` for an error that aiohttp raises when it routes a request or reads its body."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("The body is larger than this service accepts.")
    if isinstance(error, web.HTTPNotFound):
        return NotFound("There is nothing at this target.")
    return Malformed(f"The request cannot be read: {error.reason}.")
