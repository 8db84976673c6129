"""One HTTP connection: what aiohttp would refuse in its own words, before any handler of ours sees it, in ours.

Invariant: bytes that are no HTTP/1 request are answered 400 as problem+json, once, without an echo of what was sent and
without a traceback in the log, and the connection is closed; the next bytes on it are never read as a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import InvalidURLError

from service.boundary import fault, frames, problem, translated
from service.errors import Malformed

_log = structlog.get_logger("recollect.protocol")
# The parser also lets 0.9 and 2.0 through, whose answers would look nothing like HTTP/1's.
_SPOKEN: Final = (HttpVersion11, HttpVersion10)
RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Protocol(web.RequestHandler):
    """aiohttp's connection, with our words for its refusals."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or what went wrong outside of every handler; called by aiohttp.

        Raises:
            ConnectionError: part of an answer has left already, so that no other can follow.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer has left already")
        if status == Malformed.status:
            reason = _reason(exc, message)
            _log.debug("no HTTP request", reason=reason)
            response = problem(Malformed(f"This is no HTTP/1.1 request: {reason}."))
        else:
            _log.error(
                "request failed outside of every handler", status=status, exception=None if exc is None else frames(exc)
            )
            response = problem(fault())
        response.force_close()
        return response


def guarded(handler: RequestHandler) -> RequestHandler:
    """Wrap an application's whole handling, routing included, so that only answers of ours leave it.

    Args:
        handler: aiohttp's entry into the application.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.version not in _SPOKEN:
            response = problem(Malformed("Only HTTP/1.1 and HTTP/1.0 are spoken here."))
            response.force_close()
            return response
        try:
            return await handler(request)
        except web.HTTPException as error:
            return problem(translated(error))

    return answer


async def expect(request: web.Request) -> None:
    """Meet `Expect: 100-continue`, and ignore other expectations as RFC 9110 section 10.1.1 allows."""
    if request.version == HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The answer itself has not begun.
        request.writer.output_size = 0


def _reason(exc: BaseException | None, message: str | None) -> str:
    if isinstance(exc, InvalidURLError) or not message:
        return "its target cannot be read"
    # What follows the first colon or line quotes the request.
    return message.splitlines()[0].partition(":")[0].strip().rstrip(".")[:100] or "it cannot be read"
