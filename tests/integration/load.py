"""Clients that send requests while processes are killed, frozen or restarted."""

import asyncio
import random
import ssl
import time
from collections.abc import Callable
from typing import Self


class Load:
    """Keep-alive clients that check for a closed connection before they reuse it.

    Args:
        port: The port of the balancer.
        clients: How many; each has one connection and one request at a time.
        retries: How often a request whose connection broke is sent again, 10 to 50 ms later on a new connection.
        deadline_s: How long a request may take, all tries together.
        tls: The TLS settings; None for plain HTTP.
        takes_degraded: Whether a degraded list is a good answer.
        host: The address of the balancer.
        event: The body of every fourth request, which reports events.
    """

    def __init__(
        self,
        port: int,
        *,
        clients: int = 8,
        retries: int = 0,
        deadline_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
        takes_degraded: bool = False,
        event: bytes = b"{}",
        host: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self._event = event
        self._port = port
        self._tls = tls
        self._takes_degraded = takes_degraded
        self.degraded = 0
        self._clients = clients
        self._retries = retries
        self._deadline_s = deadline_s
        self._stop = asyncio.Event()
        self.answered = 0
        self.failures: list[str] = []
        self.latencies_s: list[float] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        enough = self.answered + count
        await until(lambda: self.answered >= enough)

    async def _client(self, number: int) -> None:
        connection = _Connection(self._host, self._port, self._tls)
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(self._deadline_s):
                    head = await self._answer(connection, _request(number, self._event))
                is_degraded = b"x-degraded" in head
                self.degraded += is_degraded
                if head.startswith((b"http/1.1 200", b"http/1.1 202")) and (self._takes_degraded or not is_degraded):
                    self.answered += 1
                    self.latencies_s.append(time.monotonic() - began_s)
                else:
                    self.failures.append(head.decode())
            except (OSError, EOFError) as error:
                self.failures.append(f"{error!r} after {time.monotonic() - began_s:.2f} s")
                connection.close()
            # A rate that leaves two cores room for the processes under test.
            await asyncio.sleep(0.02)
        connection.close()

    async def _answer(self, connection: "_Connection", request: bytes) -> bytes:
        for retries_left in range(self._retries, -1, -1):
            try:
                return await connection.exchange(request)
            except (OSError, EOFError):
                connection.close()
                if not retries_left:
                    raise
                # At once, it could still reach the listener of the very process that is dying.
                await asyncio.sleep(random.uniform(0.01, 0.05))
        raise AssertionError("unreachable")


class _Connection:
    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes) -> bytes:
        """Return the head of the answer in lower case."""
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        if b"connection: close" in head:
            self.close()
        return head

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _request(number: int, event: bytes) -> bytes:
    # Of a client of its own, where proxies are believed, so that limits per client say nothing.
    head = b"Host: localhost\r\nX-Forwarded-For: 10.0.%d.%d\r\n" % (random.randrange(256), random.randrange(256))
    if number % 4 == 0:
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(event)
        return b"POST /v1/events HTTP/1.1\r\n%b\r\n%b" % (head, event)
    return b"GET /v1/recommendations/%d HTTP/1.1\r\n%b\r\n" % (number, head)


async def until(predicate: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for what happens in other processes."""
    async with asyncio.timeout(timeout_s):
        while not predicate():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)
