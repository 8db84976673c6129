"""A lean closed-loop generator: each connection sends its next request when the last one is answered.

Invariant: it does little enough per request that on a core of its own it never limits a Python server; an answer counts
as good or failed by its status. It measures throughput: a closed loop hides waiting, so `recollect loadtest` measures
latencies. It parses only Content-Length, which keeps it faster than `http_connection`, and that than aiohttp and h11.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from service.errors import RunError


@dataclass(frozen=True)
class Throughput:
    """Good answers per second, failed ones, and the generator's share of a core's time, near 1 if it is the limit."""

    requests_per_s: float
    failed: int
    generator_share: float


class _Counts:
    """The answers on all connections."""

    __slots__ = ("failed", "good")

    def __init__(self) -> None:
        self.good = 0
        self.failed = 0


class _Connection(asyncio.Protocol):
    """One connection that always has one open request."""

    def __init__(self, requests: Iterator[bytes], counts: _Counts, lost: asyncio.Future[None]) -> None:
        self._requests = requests
        self._counts = counts
        self._lost = lost
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
            self._pending = b""
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or len(data) < head_end + 4 + content_length(data, head_end):
            self._pending = data
            return
        if data[9:12] == b"200":
            self._counts.good += 1
        else:
            self._counts.failed += 1
        self.transport.write(next(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_exception(RunError(f"The server closed a connection under load: {exc or 'end of file'}."))


def content_length(data: bytes, head_end: int) -> int:
    """Return the length of a body from the head that ends at `head_end`.

    Raises:
        RunError: The head has no Content-Length.
    """
    start = data.find(b"\nContent-Length: ", 0, head_end)
    if start < 0:
        # Header names are case-insensitive, but most servers write this one alike.
        start = data[:head_end].lower().find(b"\ncontent-length: ")
        if start < 0:
            raise RunError("An answer without Content-Length cannot be counted.")
    start += 17
    end = data.find(b"\r", start)
    return int(data[start:end])


async def drive(
    host: str, port: int, requests: Sequence[bytes], *, connections: int, warmup_s: float, duration_s: float
) -> Throughput:
    """Send requests again and again over kept-alive connections, and count answers after a warm-up.

    Raises:
        RunError: The server is unreachable, closes a connection, or sends an answer without Content-Length.
    """
    loop = asyncio.get_running_loop()
    counts = _Counts()
    lost: asyncio.Future[None] = loop.create_future()
    stream = itertools.cycle(requests)
    opened: list[_Connection] = []
    try:
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _Connection(stream, counts, lost), host, port)
            opened.append(connection)
        await asyncio.wait([lost], timeout=warmup_s)
        begin_s, busy_s, good, failed = time.perf_counter(), time.process_time(), counts.good, counts.failed
        await asyncio.wait([lost], timeout=duration_s)
        took_s, busy_s = time.perf_counter() - begin_s, time.process_time() - busy_s
        good, failed = counts.good - good, counts.failed - failed
        if lost.done():
            lost.result()
    except OSError as error:
        raise RunError(f"{host}:{port} cannot be driven: {error}.") from error
    finally:
        if not lost.done():
            lost.cancel()
        for connection in opened:
            connection.transport.abort()
        # Transports close their sockets in the loop's next iteration, not in abort().
        await asyncio.sleep(0)
    return Throughput(good / took_s, failed, busy_s / took_s)
