import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ops.drill import redis_commands
from ops.drill.faults.proxy import Mode, Proxy
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
    """Both ways, in order, whatever the size."""
    text = "".join(chr(97 + n % 26) for n in range(300_000))
    assert await redis_commands.call(proxy.port, "SET", "k", text) == "OK"
    assert await redis_commands.call(proxy.port, "GET", "k") == text


@pytest.mark.parametrize("mode", [Mode.SLICED, Mode.SLOW])
async def test_a_bent_link_passes_the_same_bytes(proxy: Proxy, mode: Mode) -> None:
    """One by one, or slowly."""
    text = "x" * 20_000
    await proxy.set(mode)
    began_s = time.monotonic()
    assert await redis_commands.call(proxy.port, "SET", "k", text) == "OK"
    if mode is Mode.SLOW:
        # 64 KiB/s, less the piece that leaves at once.
        assert time.monotonic() - began_s >= 0.2
    assert await redis_commands.call(proxy.port, "GET", "k") == text


async def test_a_refused_link_breaks_what_is_open_and_takes_nothing_new(proxy: Proxy) -> None:
    """And listens again on the same port afterwards."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    await proxy.set(Mode.REFUSED)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.transport.abort()
    with pytest.raises(RunError, match="did not answer PING"):
        await redis_commands.call(proxy.port, "PING")
    await proxy.set(Mode.OPEN)
    assert await redis_commands.call(proxy.port, "PING") == "PONG"


async def test_a_silent_link_passes_on_what_it_held_when_it_heals(
    proxy: Proxy, redis_server: RedisServer, await_until: Callable[..., Awaitable[None]]
) -> None:
    """As a network that drops packets does: TCP sends them again."""
    await proxy.set(Mode.SILENT)
    asked = asyncio.create_task(redis_commands.call(proxy.port, "SET", "k", "v"))
    with pytest.raises(RunError, match="no answer in time"):
        await redis_commands.call(proxy.port, "PING", timeout_s=0.2)
    assert not asked.done()
    assert await redis_commands.call(redis_server.port, "GET", "k") is None
    await proxy.set(Mode.OPEN)
    assert await asked == "OK"


async def test_a_lossy_link_loses_the_reply_of_what_was_done(proxy: Proxy, redis_server: RedisServer) -> None:
    """Every second XADD is in the stream, and its sender cannot know."""
    await proxy.set(Mode.LOSSY)
    lost = 0
    for _ in range(4):
        try:
            await redis_commands.call(proxy.port, "XADD", "s", "*", "k", "v")
        except RunError:
            lost += 1
    assert (lost, proxy.replies_lost) == (2, 2)
    assert await redis_commands.call(redis_server.port, "XLEN", "s") == 4
    assert await redis_commands.call(proxy.port, "PING") == "PONG"


async def test_every_kind_of_reply_is_read(redis_server: RedisServer) -> None:
    """Status, number, text, none, list; an error is raised."""
    port = redis_server.port
    assert await redis_commands.call(port, "RPUSH", "l", "a", "b") == 2
    assert await redis_commands.call(port, "LRANGE", "l", "0", "-1") == ["a", "b"]
    assert await redis_commands.call(port, "GET", "nothing") is None
    with pytest.raises(RunError, match="WRONGTYPE"):
        await redis_commands.call(port, "GET", "l")
