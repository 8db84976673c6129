"""One HTTP connection: refusals before any handler runs, as problem+json.

Invariant: bytes that are not an HTTP/1 request are answered 400, once, without quoting them and without a traceback in
the log. The connection is then closed, so that no further bytes on it are read as a request.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.http_exceptions import InvalidURLError

from service.api import wire
from service.api.reply import COMMON_HEADERS
from service.errors import Malformed, Overloaded
from service.serving.http.admission import Admission
from service.serving.http.boundary import internal_error, problem_response, request_error_of, traceback_of

_log = structlog.get_logger("recollect.protocol")
# The parser also accepts 0.9 and 2.0, whose answers would not be HTTP/1.
_VERSIONS: Final = (HttpVersion11, HttpVersion10)
_LIST_STARTS: Final = tuple(
    b"GET " + path for path in (b"/recommend/", b"/v1/recommendations/", b"/v1/popular", b"/v1/items/")
)
# Headers by which a request has a body, or its answer closes or changes the connection.
_SPECIAL_HEADER: Final = re.compile(
    rb"\n(?:content-length|transfer-encoding|connection|upgrade|expect)[ \t]*:", re.IGNORECASE
).search
RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Protocol(web.RequestHandler):
    """aiohttp's connection with admission control and problem+json refusals.

    Under overload most requests are refused, so a refusal must cost far less than an answer. A GET of a list that
    arrives whole, alone and on an idle connection is refused before it is parsed, all others in `with_admission`.
    """

    __slots__ = ("_admission", "_arrived_s", "_at_request_end", "_clock_s")

    def __init__(self, *args: Any, admission: Admission | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._admission = admission
        self._clock_s = asyncio.get_running_loop().time
        # The arrival time of an accepted list request whose handler has not begun; 0 if there is none.
        self._arrived_s = 0.0
        # Whether the last bytes may have ended a request. If so, the next bytes on an idle connection begin one.
        self._at_request_end = True

    # The next three methods are the only ones that touch private attributes of aiohttp's RequestHandler.
    # tests/contracts/test_aiohttp.py names the versions of aiohttp that have them.

    def _is_idle(self) -> bool:
        """Whether no request is open, parsed or partly read on this connection."""
        return self._waiter is not None and not self._messages

    def _is_closing(self) -> bool:
        return self._close or self._force_close

    def _restart_idle_timeout(self) -> None:
        self._next_keepalive_close_time = self._clock_s() + self._keepalive_timeout

    def data_received(self, data: bytes) -> None:
        """Refuse a request from its bytes, or pass the bytes to aiohttp's parser; called by the loop."""
        admission = self._admission
        if admission is not None:
            begins, self._at_request_end = self._at_request_end, data.endswith(b"\r\n\r\n")
            if begins and self._at_request_end and self._is_idle() and data.startswith(_LIST_STARTS):
                lists = admission.lists
                if not lists.full:
                    lists.enter()
                    self._arrived_s = self._clock_s()
                elif _is_one_request(data) and self._refuse():
                    lists.count_refusal()
                    return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release an accepted request that has not begun; called by the loop."""
        if self.pop_arrival() is not None and self._admission is not None:
            self._admission.lists.drop()
        super().connection_lost(exc)

    def pop_arrival(self) -> float | None:
        """Return and clear the arrival of the request that begins now; None if `data_received` did not accept it."""
        arrived_s, self._arrived_s = self._arrived_s, 0.0
        return arrived_s or None

    def _refuse(self) -> bool:
        """Refuse a request, unless the connection closes or its client does not read; return whether it was refused."""
        transport = self.transport
        if transport is None or self._is_closing() or transport.get_write_buffer_size():
            return False
        self._restart_idle_timeout()
        transport.write(_refusal(rfc822_formatted_time()))
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that cannot be parsed, or an error outside of every handler; called by aiohttp.

        Raises:
            ConnectionError: Part of an answer has been sent, so no other can follow.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("Part of an answer has been sent.")
        if status == Malformed.status:
            reason = _reason(exc, message)
            _log.debug("malformed request", reason=reason)
            response = problem_response(Malformed(f"This is no HTTP/1.1 request: {reason}."))
        else:
            trace = None if exc is None else traceback_of(exc)
            _log.error("request failed outside of every handler", status=status, exception=trace)
            response = problem_response(internal_error())
        response.force_close()
        return response


def with_admission(handler: RequestHandler, admission: Admission | None = None) -> RequestHandler:
    """Wrap an application, routing included, in admission control and the translation of routing errors.

    `with_boundary` wraps one handler and runs only after routing.
    """
    clock = asyncio.get_running_loop().time

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.version not in _VERSIONS:
            response = problem_response(Malformed("Only HTTP/1.1 and HTTP/1.0 are supported."))
            response.force_close()
            return response
        limit, arrived_s = None, 0.0
        if admission is not None:
            # Inline: a nested function would cost every request a microsecond.
            protocol = request.protocol
            accepted_s = protocol.pop_arrival() if isinstance(protocol, Protocol) else None
            if accepted_s is not None:
                limit, arrived_s = admission.lists, accepted_s
            elif (limit := admission.limit_of(request.raw_path)) is not None:
                if not limit.enter():
                    return problem_response(Overloaded())
                arrived_s = clock()
        try:
            return await handler(request)
        except web.HTTPException as error:
            return problem_response(request_error_of(error))
        finally:
            if limit is not None:
                limit.leave(arrived_s, clock())

    return answer


def _is_one_request(data: bytes) -> bool:
    """Whether bytes that end like a head are one request without a body on a connection that stays open."""
    return data.find(b"\r\n\r\n") == len(data) - 4 and b" HTTP/1.1\r\n" in data and not _SPECIAL_HEADER(data)


@lru_cache(maxsize=1)
def _refusal(date: str) -> bytes:
    """Return a whole refusal, rendered once per second."""
    error = Overloaded()
    body = wire.encode(error.problem())
    common = "".join(f"{name}: {value}\r\n" for name, value in COMMON_HEADERS.items())
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n{common}"
        f"Retry-After: {error.retry_after_s}\r\nContent-Length: {len(body)}\r\nDate: {date}\r\n"
        f"Server: {SERVER_SOFTWARE}\r\n\r\n"
    )
    return head.encode("ascii") + body


async def handle_expect(request: web.Request) -> None:
    """Answer `Expect: 100-continue`, and ignore other expectations as RFC 9110 section 10.1.1 allows."""
    if request.version == HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The interim answer does not count as the begin of the answer, which `handle_error` checks.
        request.writer.output_size = 0


def _reason(exc: BaseException | None, message: str | None) -> str:
    if isinstance(exc, InvalidURLError) or not message:
        return "its target cannot be read"
    # The text after the first colon or line quotes the request.
    return message.splitlines()[0].partition(":")[0].strip().rstrip(".")[:100] or "it cannot be read"
