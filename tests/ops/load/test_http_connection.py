import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from ops.load.http_connection import Answer, Broken, HttpClient

_GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Server:
    """A real server on loopback that runs a script on each connection, and counts connections."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.accepted = 0
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            await self._script(self.accepted, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _serving(script: Script) -> AsyncIterator[_Server]:
    server = _Server(script)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


def _replying(*replies: bytes) -> Script:
    """Answer each request on a connection with the next bytes, then close."""

    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()

    return script


async def _forever(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_OK)


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (_OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: 1\r\n\r\n", 200, b"a"),
        (b"HTTP/1.1 200 OK\r\n\r\nup to the end", 200, b"up to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + _OK, 200, b"ok"),
        (b"HTTP/1.1 503\r\nCONTENT-LENGTH:0\r\n\r\n", 503, b""),
    ],
)
async def test_the_end_of_a_body_follows_the_head(reply: bytes, status: int, body: bytes) -> None:
    """Content-Length, chunks, end of connection, and no body."""
    async with _serving(_replying(reply)) as server:
        client = HttpClient("127.0.0.1", server.port, 1)
        answer = await client.exchange(_GET)
        await client.aclose()
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (status, body)


async def test_an_answer_in_pieces_is_assembled() -> None:
    """Byte by byte."""
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for byte in reply:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)

    async with _serving(script) as server:
        client = HttpClient("127.0.0.1", server.port, 1)
        for _ in range(3):
            answer = await client.exchange(_GET)
            assert isinstance(answer, Answer)
            assert answer.body == b"abc"
        await client.aclose()
        assert server.accepted == 1


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (b"", "eof"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "eof"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "eof"),
        (b"SMTP ready\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "protocol"),
        (b"x" * 70_000, "protocol"),
    ],
)
async def test_an_incomplete_or_invalid_answer_is_broken(reply: bytes, cause: str) -> None:
    """With different causes."""
    async with _serving(_replying(reply)) as server:
        client = HttpClient("127.0.0.1", server.port, 1)
        result = await client.exchange(_GET)
        await client.aclose()
    assert isinstance(result, Broken)
    assert result.cause == cause


async def test_a_reset_and_an_end_of_file_are_different_causes() -> None:
    """RST means that the server lost the connection."""

    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        # Linger 0 turns close() into a reset.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with _serving(script) as server:
        client = HttpClient("127.0.0.1", server.port, 1)
        result = await client.exchange(_GET)
        await client.aclose()
    assert isinstance(result, Broken)
    assert result.cause == "reset"


async def test_a_refused_connection_is_a_connect_failure(free_port: Callable[[], int]) -> None:
    """It names the address."""
    port = free_port()
    result = await HttpClient("127.0.0.1", port, 1).exchange(_GET)
    assert isinstance(result, Broken)
    assert result.cause == "connect"
    assert str(port) in result.detail


async def test_a_connection_is_used_again_unless_the_server_closed_it() -> None:
    """An end of file on an idle connection costs no request."""
    async with _serving(_replying(_OK, _OK)) as server:
        client = HttpClient("127.0.0.1", server.port, 1)
        for _ in range(6):
            assert isinstance(await client.exchange(_GET), Answer)
        await client.aclose()
        assert server.accepted == 3


async def test_an_end_of_file_is_polled_before_reuse() -> None:
    """The loop has not run since the server closed the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = HttpClient("127.0.0.1", listener.getsockname()[1], 1)
    first = asyncio.create_task(client.exchange(_GET))
    server_side, _ = await asyncio.to_thread(listener.accept)
    server_side.sendall(_OK)
    assert isinstance(await first, Answer)
    assert client.reusable_connection() is not None
    second = asyncio.create_task(client.exchange(_GET))
    other_side, _ = await asyncio.to_thread(listener.accept)
    other_side.sendall(_OK)
    assert isinstance(await second, Answer)
    # From here on the loop does not run: only the kernel knows of the end of file.
    other_side.close()
    assert client.reusable_connection() is None
    server_side.close()
    listener.close()
    await client.aclose()


async def test_connection_close_is_honoured() -> None:
    """The connection is not reused."""
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with _serving(_replying(closing, closing)) as server:
        client = HttpClient("127.0.0.1", server.port, 1)
        for _ in range(2):
            assert isinstance(await client.exchange(_GET), Answer)
        await client.aclose()
        assert server.accepted == 2


async def test_an_abandoned_request_closes_its_connection() -> None:
    """A late answer is never returned for the next request."""
    release = asyncio.Event()

    async def script(connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if connection == 1:
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale")
        else:
            writer.write(_OK)

    async with _serving(script) as server:
        client = HttpClient("127.0.0.1", server.port, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.exchange(_GET)
        release.set()
        answer = await client.exchange(_GET)
        await client.aclose()
    assert isinstance(answer, Answer)
    assert answer.body == b"ok"


async def test_no_more_connections_than_allowed_are_open() -> None:
    """Requests beyond the bound wait for a connection instead of opening one."""
    async with _serving(_forever) as server:
        client = HttpClient("127.0.0.1", server.port, 3)
        answers = await asyncio.gather(*(client.exchange(_GET) for _ in range(30)))
        await client.aclose()
        assert all(isinstance(answer, Answer) for answer in answers)
        assert server.accepted <= 3
