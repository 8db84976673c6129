"""Where errors become answers: what is put around every handler.

Invariant: what leaves is a response with a status of ours and, if it is not 2xx, a problem+json body (RFC 9457). A
fault of ours is answered 500 with no detail of the inside, is logged with its traceback and without anything a caller
sent, and never reaches aiohttp's own handler.
"""

import time
import traceback
from collections.abc import Awaitable, Callable

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
from service.serving.context import ReplicaContext

_log = structlog.get_logger("recollect.boundary")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bounded(context: ReplicaContext, route: str, handler: Handler, scope: Scope | None = None) -> Handler:
    """Wrap a handler so that only who may reaches it, and whatever it does becomes one of our answers, and is counted.

    Args:
        context: The replica.
        route: The route's name in the metrics; never an id, so that there are few.
        handler: What answers.
        scope: What a caller's key must be for, where there are keys; None for a route that is open to all.
    """
    gate = context.gate
    counted = context.metrics.route(route)
    state = context.state

    async def answer(request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        response: web.StreamResponse
        try:
            if scope is not None:
                gate.admit(request.headers, scope)
            response = await handler(request)
        except NoModel as error:
            response = problem(NoModelHere() if "X-Recollect-Balancer" in request.headers else error)
        except RequestError as error:
            response = problem(error)
        except web.HTTPException as error:
            response = problem(translated(error))
        except Exception as error:  # noqa: BLE001 (the boundary is where the rest is caught)
            context.metrics.faults.inc()
            # The path may hold a user's id, and so may what an exception says.
            _log.error("request failed", method=request.method, route=route, exception=frames(error))
            response = problem(fault())
        if not isinstance(response, Reply):
            for name, value in COMMON_HEADERS.items():
                response.headers.setdefault(name, value)
        if state.draining or response.status == RequestTimedOut.status:
            response.force_close()
        counted.answered(response.status, time.perf_counter() - started)
        return response

    return answer


async def not_found(request: web.Request) -> web.StreamResponse:
    """Answer what no route matches."""
    raise NotFound(f"There is nothing at {request.path[:256]}; /docs describes the routes that there are.")


def not_allowed(methods: list[str]) -> Handler:
    """Return the handler of a route's other methods."""
    allow = ", ".join(sorted(methods))

    async def answer(request: web.Request) -> web.StreamResponse:
        raise MethodNotAllowed(f"{request.method} is not possible here; {allow} is.", allow=allow)

    return answer


def problem(error: RequestError) -> web.Response:
    """Render an error as RFC 9457 describes."""
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


def frames(error: BaseException) -> str:
    """Say where a fault came from, and of which type it is, without its text, which may quote what a caller sent."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        parts.append("".join([*traceback.format_tb(cause.__traceback__), type(cause).__qualname__]))
        cause = cause.__cause__ or cause.__context__
    return "\nraised from:\n".join(parts)


def fault() -> RequestError:
    """Return what is said of a fault of ours, whose traceback is in the log and nowhere else."""
    return RequestError("Something went wrong on our side; it has been logged.")


def translated(error: web.HTTPException) -> RequestError:
    """Say in our words what aiohttp itself refuses, when it finds a request's route or reads its body."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("The body is larger than this service takes.")
    if isinstance(error, web.HTTPNotFound):
        return NotFound("There is nothing at this target.")
    return Malformed(f"The request cannot be read: {error.reason}.")
