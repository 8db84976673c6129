"""One HTTP connection: what aiohttp would refuse in its own words, before any handler of ours sees it, in ours.

Invariant: bytes that are no HTTP/1 request are answered 400 as problem+json, once, without an echo of what was sent and
without a traceback in the log, and the connection is closed; the next bytes on it are never read as a request.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import cache, lru_cache
from typing import Any, Final

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.http_exceptions import InvalidURLError

from service.api import wire
from service.api.reply import COMMON_HEADERS
from service.errors import Malformed, Overloaded
from service.serving.admission import Admission, kind_of
from service.serving.boundary import fault, frames, problem, translated

_log = structlog.get_logger("recollect.protocol")
# The parser also lets 0.9 and 2.0 through, whose answers would look nothing like HTTP/1's.
_SPOKEN: Final = (HttpVersion11, HttpVersion10)
# How the targets of lists begin; what follows them decides nothing here.
_LISTS: Final = tuple(
    b"GET " + path for path in (b"/recommend/", b"/v1/recommendations/", b"/v1/popular", b"/v1/items/")
)
# Headers that make a request more than its head, or its answer the last one.
_MORE: Final = re.compile(
    rb"\n(?:content-length|transfer-encoding|connection|upgrade|expect)[ \t]*:", re.IGNORECASE
).search
RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Protocol(web.RequestHandler):
    """aiohttp's connection, with our words for its refusals.

    Under overload most requests are refused, so refusing must cost far less than answering. A list's GET that is whole,
    alone and the only thing on its connection is refused as it arrives, before it is parsed; all else in `guarded`.

    Args:
        admission: What is taken on; None where everything is.
    """

    __slots__ = ("_admission", "_arrived_s", "_ends_whole")

    def __init__(self, *args: Any, admission: Admission | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._admission = admission
        # When the list arrived that was taken on and is not begun; 0 if there is none.
        self._arrived_s = 0.0
        # Whether what came last ended where a request may end. While no request is open, the next one begins there.
        self._ends_whole = True

    def data_received(self, data: bytes) -> None:
        """Take on, refuse or pass on what arrived; called by the loop."""
        admission = self._admission
        if admission is not None:
            begins, self._ends_whole = self._ends_whole, data.endswith(b"\r\n\r\n")
            # Nothing is open or waits on this connection, and a whole head came.
            alone = begins and self._ends_whole and self._waiter is not None and not self._messages
            if alone and data.startswith(_LISTS):
                lists = admission.lists
                if not lists.full:
                    lists.enter()
                    self._arrived_s = self._loop.time()
                elif _is_one(data) and self._refuse():
                    lists.refuse()
                    return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of what was taken on and will not be begun; called by the loop."""
        if self.take_arrival() is not None and self._admission is not None:
            self._admission.lists.drop()
        super().connection_lost(exc)

    def take_arrival(self) -> float | None:
        """Return when the list arrived that is begun now, if it was taken on when it did; once."""
        arrived_s, self._arrived_s = self._arrived_s, 0.0
        return arrived_s or None

    def _refuse(self) -> bool:
        """Refuse what came, unless the connection is closing or its client does not read; returns whether it was."""
        transport = self.transport
        if transport is None or self._close or self._force_close or transport.get_write_buffer_size():
            return False
        # It is in use: not to be closed as idle.
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        transport.write(_refusal(rfc822_formatted_time()))
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or what went wrong outside of every handler; called by aiohttp.

        Raises:
            ConnectionError: Part of an answer has left already, so that no other can follow.
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


def guarded(handler: RequestHandler, admission: Admission | None = None) -> RequestHandler:
    """Wrap an application's whole handling, routing included, so that only answers of ours leave it.

    Args:
        handler: Aiohttp's entry into the application.
        admission: What is taken on; None where everything is.
    """
    clock = asyncio.get_running_loop().time

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.version not in _SPOKEN:
            response = problem(Malformed("Only HTTP/1.1 and HTTP/1.0 are spoken here."))
            response.force_close()
            return response
        limit, arrived_s = None, 0.0
        if admission is not None:
            # One function, not one around another: each costs every request a microsecond.
            protocol = request.protocol
            taken_on_s = protocol.take_arrival() if isinstance(protocol, Protocol) else None
            if taken_on_s is not None:
                limit, arrived_s = admission.lists, taken_on_s
            elif (limit := admission.of(kind_of(request.raw_path))) is not None:
                if not limit.enter():
                    return problem(Overloaded())
                arrived_s = clock()
        try:
            return await handler(request)
        except web.HTTPException as error:
            return problem(translated(error))
        finally:
            if limit is not None:
                limit.leave(arrived_s, clock())

    return answer


def _is_one(data: bytes) -> bool:
    """Whether bytes that end as a head does are one request without a body, after which the connection stays open."""
    return data.find(b"\r\n\r\n") == len(data) - 4 and b" HTTP/1.1\r\n" in data and not _MORE(data)


@cache
def _refusal_head() -> tuple[bytes, bytes]:
    error = Overloaded()
    body = wire.encode(error.problem())
    common = "".join(f"{name}: {value}\r\n" for name, value in COMMON_HEADERS.items())
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n{common}"
        f"Retry-After: {error.retry_after_s}\r\nContent-Length: {len(body)}\r\nDate: "
    )
    return head.encode("ascii"), f"\r\nServer: {SERVER_SOFTWARE}\r\n\r\n".encode("ascii") + body


@lru_cache(maxsize=1)
def _refusal(date: str) -> bytes:
    """Return the whole refusal, made once a second."""
    head, rest = _refusal_head()
    return head + date.encode("ascii") + rest


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
