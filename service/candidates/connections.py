"""Kept-alive HTTP/1.1 connections to one address, for small requests and answers within one system.

A list waits for candidates, so that a request here costs a fifth of one by aiohttp's client: head and body are one
write, and of an answer only what is needed is parsed.

Invariants: an answer belongs to the request it is returned for; a connection whose request was abandoned is closed.
Answers without Content-Length are refused: neither a replica nor nginx sends one.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

from yarl import URL

from service.errors import CandidatesUnavailable

# Far below the time after which a replica closes an idle connection, and a replica that stops waits for no longer.
_IDLE_S: Final = 2.0
_ANSWER_LIMIT_BYTES: Final = 8 << 20
_HEAD_LIMIT_BYTES: Final = 1 << 16
_HEAD_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n")
_CLOSES: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n")


class HttpAnswer(NamedTuple):
    """An answer; the head is in lower case, with its line breaks."""

    status: int
    head: bytes
    body: bytes


class Connections:
    """The connections to one address; as many are open as there are open requests."""

    def __init__(self, url: URL) -> None:
        self._host = url.host or ""
        self._port = url.port or 80
        self._ssl = ssl.create_default_context() if url.scheme == "https" else None
        self._authority = url.authority.encode("idna" if not url.authority.isascii() else "ascii")
        self._prefix = url.raw_path.rstrip("/").encode("ascii")
        # The one used last comes last.
        self._idle: list[_Connection] = []
        self._expiring: asyncio.TimerHandle | None = None

    async def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> HttpAnswer:
        """Send a request and return its answer.

        Raises:
            OSError: The connection cannot be made, or broke.
            CandidatesUnavailable: The answer is not one of this protocol.
        """
        lines = [method.encode("ascii") + b" " + self._prefix + path.encode("ascii") + b" HTTP/1.1"]
        lines += [b"Host: " + self._authority, b"Content-Length: %d" % len(body)]
        # Values of a received request have neither line breaks nor control characters.
        lines += [f"{name}: {value}".encode("utf-8", "surrogateescape") for name, value in headers.items()]
        connection = self._take()
        if connection is None:
            loop = asyncio.get_running_loop()
            _, made = await loop.create_connection(_Connection, self._host, self._port, ssl=self._ssl)
            connection = made
        try:
            answer = await connection.answer(b"\r\n".join(lines) + _HEAD_END + body)
        except BaseException:
            # A late answer would be read as the next request's.
            connection.close()
            raise
        if not connection.is_closed:
            connection.idle_s = time.monotonic()
            self._idle.append(connection)
            if self._expiring is None:
                self._expiring = asyncio.get_running_loop().call_later(_IDLE_S, self._expire)
        return answer

    def close(self) -> None:
        """Close the idle connections; those in use close with their requests."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self._expiring is not None:
            self._expiring.cancel()
            self._expiring = None

    def _take(self) -> "_Connection | None":
        """Return the connection used last that is still open."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                return connection
        return None

    def _expire(self) -> None:
        """Close the connections that were idle for too long."""
        self._expiring = None
        oldest_s = time.monotonic() - _IDLE_S
        kept = [one for one in self._idle if not one.is_closed and one.idle_s > oldest_s]
        for connection in set(self._idle).difference(kept):
            connection.close()
        self._idle = kept
        if kept:
            left_s = max(0.0, kept[0].idle_s - oldest_s)
            self._expiring = asyncio.get_running_loop().call_later(left_s, self._expire)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.idle_s = 0.0
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[HttpAnswer] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("It was closed by the other side."))

    def eof_received(self) -> None:
        self.close()

    def data_received(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():
            # Nothing was asked.
            self.close()
            return
        self._received = received = self._received + data if self._received else data
        head_end = received.find(_HEAD_END)
        if head_end < 0:
            if len(received) > _HEAD_LIMIT_BYTES:
                self._refuse("its head is too long")
            return
        head = received[: head_end + 2].lower()
        status, length = _STATUS.match(received), _LENGTH.search(head)
        if status is None or length is None or int(length[1]) > _ANSWER_LIMIT_BYTES:
            self._refuse("it has no Content-Length that can be read")
            return
        start = head_end + len(_HEAD_END)
        end = start + int(length[1])
        if len(received) < end:
            return
        if len(received) > end or _CLOSES.search(head):
            self.close()
        self._waiting, self._received = None, b""
        waiting.set_result(HttpAnswer(int(status[1]), head, received[start:end]))

    async def answer(self, request: bytes) -> HttpAnswer:
        """Send a request on an idle connection, and wait for its answer."""
        if self._transport is None or self.is_closed:
            raise ConnectionResetError("It is closed.")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Close at once."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, reason: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(CandidatesUnavailable(f"The answer is not of this protocol: {reason}."))
        self.close()

    def _fail(self, error: OSError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
