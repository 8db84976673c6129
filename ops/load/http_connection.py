"""The load test's HTTP/1.1 client: kept-alive connections, each carrying one request at a time.

The invariant: an answer is only ever given to the request it belongs to. So a connection with a byte or an end of file
waiting is never used again, nor one whose request was given up, and every request ends as an `Answer` or a `Broken`;
this file raises nothing but cancellation. It reads what RFC 9112 lets a server send, no more: a head, then a body by
Content-Length, by chunks, or up to the end of the connection.
"""

import asyncio
import select
from dataclasses import dataclass
from typing import Literal, cast

BreakCause = Literal["connect", "reset", "eof", "protocol"]

_NO_BODY = frozenset({204, 304})
_HEAD_LIMIT_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """No response came, and why."""

    cause: BreakCause
    detail: str


class Connection(asyncio.Protocol):
    """One connection; `exchange` may be called again while `reusable()`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer | Broken] | None = None
        self._buffer = bytearray()
        self._keep_alive = True
        self._poll = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport, and how to ask its socket for an end of file."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP)

    def reusable(self) -> bool:
        """Say whether another request may be sent.

        The loop may not have seen yet that the server closed, so the socket is asked as well. A server that promised
        to keep the connection may close it at any time, and a request sent after that would be lost.
        """
        open_ = self._keep_alive and self._transport is not None and not self._transport.is_closing()
        return open_ and not self._buffer and not self._poll.poll(0)

    async def exchange(self, request: bytes) -> Answer | Broken:
        """Send one request, head and body, and return what came back.

        Cancelling closes the connection: its answer may still come, and would be taken for the next one's.
        """
        if self._transport is None or self._transport.is_closing():
            return Broken("eof", "the connection was closed before the request was sent")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiter
        except asyncio.CancelledError:
            # Through `close`, for the connection may have been lost in the same round of the loop.
            self.close()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close at once; whoever waits for an answer gets `Broken`."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Collect, and hand over the answer when it is whole."""
        self._buffer += data
        self._settle(at_eof=False)

    def eof_received(self) -> bool:
        """Take the end of the connection as the end of the body where the head allows it; then close."""
        self._keep_alive = False
        self._settle(at_eof=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that there will be no answer."""
        self._transport = None
        if exc is None:
            self._finish(Broken("eof", "the server closed the connection before the answer was complete"))
        else:
            self._finish(Broken("reset", f"the connection broke: {exc}"))

    def _settle(self, *, at_eof: bool) -> None:
        try:
            taken = _take(self._buffer, at_eof=at_eof)
        except ValueError as error:
            self._keep_alive = False
            self._finish(Broken("protocol", f"the answer is not HTTP/1.1: {error}"))
            return
        if taken is not None:
            answer, keep_alive = taken
            self._keep_alive = self._keep_alive and keep_alive
            self._finish(answer)

    def _finish(self, result: Answer | Broken) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(result)


def _take(buffer: bytearray, *, at_eof: bool) -> tuple[Answer, bool] | None:
    """Remove one whole response from the front of buffer.

    Args:
        buffer: What came so far; left alone when the response is not whole.
        at_eof: Nothing more will come.

    Returns:
        The answer and whether the connection may be kept, or None.

    Raises:
        ValueError: These bytes are no response, in words.
    """
    while True:
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0:
            if len(buffer) > _HEAD_LIMIT_BYTES:
                raise ValueError("its head does not end")
            return None
        status, headers = _parse_head(bytes(buffer[:head_end]))
        body_start = head_end + 4
        if not 100 <= status < 200:
            break
        del buffer[:body_start]
    keep_alive = headers.get("connection", "").lower() != "close"
    if status in _NO_BODY:
        body, end = b"", body_start
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        chunks = _take_chunks(buffer, body_start)
        if chunks is None:
            return None
        body, end = chunks
    elif (length_text := headers.get("content-length")) is not None:
        if not length_text.isdecimal():
            raise ValueError(f"its Content-Length is {length_text!r}")
        end = body_start + int(length_text)
        if len(buffer) < end:
            return None
        body = bytes(buffer[body_start:end])
    elif at_eof:
        body, end, keep_alive = bytes(buffer[body_start:]), len(buffer), False
    else:
        return None
    del buffer[:end]
    return Answer(status, headers, body), keep_alive


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not (parts[1].isdecimal() and len(parts[1]) == 3):
        raise ValueError(f"it begins with {lines[0][:60]!r}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"it has the header line {line[:60]!r}")
        headers[name.lower()] = value.strip()
    return int(parts[1]), headers


def _take_chunks(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """Return a chunked body and the offset behind it, or None while it is not whole."""
    body = bytearray()
    while True:
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return None
        size_text = bytes(buffer[start:line_end]).partition(b";")[0].strip()
        try:
            size_bytes = int(size_text, 16)
        except ValueError:
            raise ValueError(f"it has the chunk size {size_text[:20]!r}") from None
        start = line_end + 2
        if size_bytes == 0:
            # Trailer fields, if any, end with an empty line.
            if buffer.startswith(b"\r\n", start):
                return bytes(body), start + 2
            trailer_end = buffer.find(b"\r\n\r\n", start)
            return None if trailer_end < 0 else (bytes(body), trailer_end + 4)
        if len(buffer) < start + size_bytes + 2:
            return None
        body += buffer[start : start + size_bytes]
        start += size_bytes + 2


class Client:
    """A bounded set of connections to one server.

    Args:
        host: Name or address.
        port: TCP port.
        connections: The most that are open at once; a request beyond waits for one to be free.
    """

    def __init__(self, host: str, port: int, connections: int) -> None:
        self._host = host
        self._port = port
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []

    async def exchange(self, request: bytes) -> Answer | Broken:
        """Send one request on a free connection, opening one where none is, and return what came back."""
        async with self._slots:
            connection = self._take_idle()
            if connection is None:
                try:
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(Connection, self._host, self._port)
                except OSError as error:
                    return Broken("connect", f"cannot connect to {self._host}:{self._port}: {error.strerror or error}")
            result = await connection.exchange(request)
            if isinstance(result, Answer) and connection.reusable():
                self._idle.append(connection)
            else:
                connection.close()
            return result

    def _take_idle(self) -> Connection | None:
        # Last in, first out: what is not needed gets old and is closed by the server, as in common clients.
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable():
                return connection
            connection.close()
        return None

    async def aclose(self) -> None:
        """Close what is idle; call it when no request is under way."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        # Transports close their sockets in the loop's next round, not at abort().
        await asyncio.sleep(0)
