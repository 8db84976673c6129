import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from ops.load.closed_loop import drive
from service.errors import RunError

_REQUESTS = [b"GET /a HTTP/1.1\r\n\r\n", b"GET /b HTTP/1.1\r\n\r\n"]


class _Server:
    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.connections = 0
        self.port = 0


@asynccontextmanager
async def _serving(answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[_Server]:
    server = _Server()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                server.seen.append(request)
                await answer(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


async def test_answers_are_counted_and_requests_repeat() -> None:
    """Every connection is busy, every request is sent, and the answers are the server's count."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with _serving(answer) as server:
        figures = await drive("127.0.0.1", server.port, _REQUESTS, connections=4, warmup_s=0, duration_s=0.5)
        assert server.connections == 4
        assert set(server.seen) == set(_REQUESTS)
        assert figures.failed == 0
        # Four are always under way and may not be answered at the end.
        assert len(server.seen) - 8 <= figures.good <= len(server.seen)
        assert 0 < figures.generator_share < 1.5


async def test_an_answer_in_pieces_counts_once() -> None:
    """A status other than 200 counts as failed."""

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        status = b"200 OK" if request.startswith(b"GET /a") else b"500 Oops"
        for piece in (b"HTTP/1.1 " + status, b"\r\ncontent-length: 4\r\n", b"\r\nbo", b"dy"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with _serving(answer) as server:
        figures = await drive("127.0.0.1", server.port, _REQUESTS, connections=1, warmup_s=0, duration_s=0.3)
        assert figures.failed > 0
        assert abs(figures.good - figures.failed) <= 1


async def test_a_lost_connection_ends_the_round() -> None:
    """The rate of fewer connections would be a wrong figure."""

    async def hang_up(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with _serving(hang_up) as server:
        with pytest.raises(RunError, match="closed a connection"):
            await drive("127.0.0.1", server.port, _REQUESTS, connections=2, warmup_s=5, duration_s=5)


async def test_a_dead_server_is_one_sentence(free_port: Callable[[], int]) -> None:
    """The sentence names the address."""
    port = free_port()
    with pytest.raises(RunError, match=f"127.0.0.1:{port} cannot be driven"):
        await drive("127.0.0.1", port, _REQUESTS, connections=1, warmup_s=0, duration_s=0.1)
