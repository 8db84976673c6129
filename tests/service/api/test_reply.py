"""`Reply` sends the bytes that aiohttp's own response would send."""

import asyncio
import re
from collections.abc import Callable

import pytest
from aiohttp import web

from service.api.reply import COMMON_HEADERS, Reply
from service.serving.http.listener import Listener
from service.serving.http.settings import ServerConfig

BODIES = {"json": (b'{"a": 1}', "application/json"), "text": ("é,1\n".encode(), "text/plain; charset=utf-8")}
VARIANTS = ["plain", "header", "forced close"]
REQUESTS = {
    "HTTP/1.1": b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n",
    "twice": b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
    "close": b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HTTP/1.0": b"GET /%s HTTP/1.0\r\n\r\n",
    "HTTP/1.0 kept alive": b"GET /%s HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "HEAD": b"HEAD /%s HTTP/1.1\r\nHost: x\r\n\r\n",
    "conditions": b"GET /%s HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\n"
    b"If-None-Match: *\r\n\r\n",
}


def answering(make: Callable[[bytes, str], web.Response], body: bytes, kind: str, variant: str) -> web.Application:
    async def answer(_request: web.Request) -> web.Response:
        response = make(body, kind)
        if variant == "header":
            response.headers["X-Degraded"] = "stale"
        if variant == "forced close":
            response.force_close()
        if not isinstance(response, Reply):
            response.headers.update(COMMON_HEADERS)
        return response

    app = web.Application()
    app.router.add_route("*", "/x", answer)
    return app


def usual(body: bytes, kind: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": kind})


async def sent(app: web.Application, port: int, raw: bytes) -> bytes:
    """Send bytes and return the answer until the connection closes, without the date."""
    listener = Listener(app, "127.0.0.1", port, ServerConfig(keepalive_timeout_s=0.05))
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await listener.close()
    return re.sub(rb"Date: [^\r]+", b"Date: -", answer)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("raw", REQUESTS.values(), ids=REQUESTS.keys())
@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=BODIES.keys())
async def test_the_bytes_equal_those_of_a_web_response(
    raw: bytes, body: bytes, kind: str, variant: str, free_port: Callable[[], int]
) -> None:
    """Head and body for every kind of request, and whether the connection stays open (both close when idle)."""
    raw = raw.replace(b"%s", b"x")
    ours, expected = await asyncio.gather(
        *(sent(answering(make, body, kind, variant), free_port(), raw) for make in (Reply, usual))
    )
    assert ours == expected
    assert ours.startswith(b"HTTP/1.")


async def test_a_slow_reader_gets_every_byte(free_port: Callable[[], int]) -> None:
    """If the socket is full, the answer waits for the client, and no byte is lost."""
    body = b"x" * (1 << 20)
    port = free_port()
    listener = Listener(answering(Reply, body, "text/plain", "plain"), "127.0.0.1", port, ServerConfig())
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 8)
    async with asyncio.timeout(10):
        for _ in range(8):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(body)) == body
    writer.close()
    await listener.close()
