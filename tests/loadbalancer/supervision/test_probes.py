"""Probes against real sockets and a real Redis."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadbalancer.supervision.probes import HttpProbe, RedisProbe, until_ready


async def answering(answer: bytes) -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", None),
        (b"HTTP/1.1 503 No\r\n\r\nno model is active\nmore", "/readyz answers 503 (no model is active)"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "/readyz answers 2000"),
        (b"", "/readyz answers nothing"),
    ],
)
async def test_only_a_200_is_ready(answer: bytes, reason: str | None) -> None:
    """The reason contains the first line of the body."""
    server, port = await answering(answer)
    async with server:
        assert await HttpProbe("127.0.0.1", port, "/readyz").not_ready_reason() == reason


async def test_no_listener_is_a_reason_and_no_error(free_port: Callable[[], int], tmp_path: Path) -> None:
    """A starting part does not listen yet."""
    port = free_port()
    assert await HttpProbe("127.0.0.1", port, "/").not_ready_reason() == f"nothing answers on port {port}"
    socket = tmp_path / "redis.sock"
    assert await RedisProbe(socket).not_ready_reason() == f"nothing answers on {socket}"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 503 No\r\n\r\n", b""])
async def test_any_answer_is_a_sign_of_life(answer: bytes) -> None:
    """Also a connection that is closed at once, as by an nginx without free connections."""
    server, port = await answering(answer)
    async with server:
        assert not await HttpProbe("127.0.0.1", port, "/healthz").times_out()


async def test_a_refused_connection_is_no_timeout(free_port: Callable[[], int]) -> None:
    """The supervisor notices an exit by other means."""
    assert not await HttpProbe("127.0.0.1", free_port(), "/healthz").times_out()


async def test_a_listener_that_accepts_nothing_times_out() -> None:
    """The kernel takes the connection and the request, as for a frozen process."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        assert await HttpProbe("127.0.0.1", frozen.getsockname()[1], "/healthz").times_out()


async def test_redis_is_ready_when_it_answers_ping(redis_server: Any) -> None:
    """A frozen one is not."""
    probe = RedisProbe(redis_server.socket)
    assert await probe.not_ready_reason() is None
    redis_server.pause()
    assert await probe.not_ready_reason() is not None
    redis_server.resume()
    assert await probe.not_ready_reason() is None


async def test_until_ready_returns_when_the_part_appears(free_port: Callable[[], int]) -> None:
    """It probes until then."""
    port = free_port()
    waiting = asyncio.create_task(until_ready(HttpProbe("127.0.0.1", port, "/")))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    assert not waiting.done()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        await asyncio.wait_for(waiting, 5)
