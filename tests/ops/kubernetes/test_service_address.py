"""The address of a service passes connections to ready pods, learns of changes late, and tries no other pod."""

import asyncio
from collections.abc import Callable

import pytest

from ops.kubernetes.service_address import ServiceAddress


async def serve(address: str, port: int) -> asyncio.Server:
    """Start a server that answers a line with its address and the line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(address.encode() + b" " + await reader.readline())
        writer.close()

    return await asyncio.start_server(answer, address, port)


async def asked(service: ServiceAddress) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"hello\n")
    try:
        return (await reader.read()).decode().split()[0]
    finally:
        writer.close()


async def test_it_passes_connections_to_ready_pods(free_port: Callable[[], int]) -> None:
    """To all of them, by chance."""
    port = free_port()
    async with (
        await serve("127.0.0.1", port),
        await serve("127.0.0.2", port),
        ServiceAddress(lambda: ["127.0.0.1", "127.0.0.2"], port, 0.0) as service,
    ):
        assert {await asked(service) for _ in range(30)} == {"127.0.0.1", "127.0.0.2"}


async def test_it_hears_of_changes_late(free_port: Callable[[], int]) -> None:
    """A pod that is gone meanwhile resets the connection, and no other one is tried."""
    port, ready = free_port(), ["127.0.0.1"]
    async with await serve("127.0.0.2", port), ServiceAddress(lambda: list(ready), port, 0.3) as service:
        ready[:] = ["127.0.0.2"]
        with pytest.raises((ConnectionError, IndexError)):
            await asked(service)
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await asked(service) == "127.0.0.2"
                except (ConnectionError, IndexError):
                    await asyncio.sleep(0.02)
                else:
                    break
