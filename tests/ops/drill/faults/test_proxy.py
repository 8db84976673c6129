import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ops.drill.faults.proxy import LinkMode, Proxy
from ops.drill.system import redis_commands
from service.errors import RunError
from tests.conftest import RedisServer


@pytest.fixture
async def proxy(redis_server: RedisServer, free_port: Callable[[], int]) -> AsyncIterator[Proxy]:
    """In front of a real Redis."""
    made = Proxy(free_port(), redis_server.port)
    await made.start()
    yield made
    await made.close()


async def test_an_open_link_passes_everything(proxy: Proxy) -> None:
    """In both directions, in order, at any size."""
    text = "".join(chr(97 + n % 26) for n in range(300_000))
    assert await redis_commands.call(proxy.port, "SET", "k", text) == "OK"
    assert await redis_commands.call(proxy.port, "GET", "k") == text


@pytest.mark.parametrize("mode", [LinkMode.SLICED, LinkMode.SLOW])
async def test_a_slow_or_sliced_link_passes_the_same_bytes(proxy: Proxy, mode: LinkMode) -> None:
    """A slow link takes its time, which is its promise."""
    text = "x" * 20_000
    await proxy.set_mode(mode)
    began_s = time.monotonic()
    assert await redis_commands.call(proxy.port, "SET", "k", text) == "OK"
    if mode is LinkMode.SLOW:
        # 64 KiB/s, less the piece that leaves at once.
        assert time.monotonic() - began_s >= 0.2
    assert await redis_commands.call(proxy.port, "GET", "k") == text


async def test_a_refused_link_resets_open_connections_and_refuses_new_ones(proxy: Proxy) -> None:
    """It listens on the same port afterwards."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    await proxy.set_mode(LinkMode.REFUSED)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.transport.abort()
    with pytest.raises(RunError, match="did not answer PING"):
        await redis_commands.call(proxy.port, "PING")
    await proxy.set_mode(LinkMode.OPEN)
    assert await redis_commands.call(proxy.port, "PING") == "PONG"


async def test_a_silent_link_passes_held_bytes_when_it_opens(
    proxy: Proxy, redis_server: RedisServer, await_until: Callable[..., Awaitable[None]]
) -> None:
    """As after lost packets, which TCP sends again."""
    await proxy.set_mode(LinkMode.SILENT)
    asked = asyncio.create_task(redis_commands.call(proxy.port, "SET", "k", "v"))
    with pytest.raises(RunError, match=r"within 0\.2 s"):
        await redis_commands.call(proxy.port, "PING", timeout_s=0.2)
    assert not asked.done()
    assert await redis_commands.call(redis_server.port, "GET", "k") is None
    await proxy.set_mode(LinkMode.OPEN)
    assert await asked == "OK"


async def test_a_lossy_link_loses_replies_of_applied_commands(proxy: Proxy, redis_server: RedisServer) -> None:
    """Every second XADD is in the stream without a reply to its sender."""
    await proxy.set_mode(LinkMode.LOSSY)
    lost = 0
    for _ in range(4):
        try:
            await redis_commands.call(proxy.port, "XADD", "s", "*", "k", "v")
        except RunError:
            lost += 1
    assert (lost, proxy.replies_lost) == (2, 2)
    assert await redis_commands.call(redis_server.port, "XLEN", "s") == 4
    assert await redis_commands.call(proxy.port, "PING") == "PONG"


async def test_every_kind_of_reply_is_decoded(redis_server: RedisServer) -> None:
    """Status, number, text, none, list; an error is raised."""
    port = redis_server.port
    assert await redis_commands.call(port, "RPUSH", "l", "a", "b") == 2
    assert await redis_commands.call(port, "LRANGE", "l", "0", "-1") == ["a", "b"]
    assert await redis_commands.call(port, "GET", "nothing") is None
    with pytest.raises(RunError, match="WRONGTYPE"):
        await redis_commands.call(port, "GET", "l")
