"""A lean closed-loop generator: each connection sends its next request when its last one was answered.

The invariant: it does as little as it can per request, so that on a core of its own it is never what limits a Python
server; every answer is counted as good or bad by its status, none is parsed further. What it measures is throughput:
latencies of a closed loop hide waiting, and `recollect loadtest` is there for those.
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
    """What one server did in one round.

    Attributes:
        requests_per_s: Good answers per second.
        failed: Answers with a status other than 200.
        generator_share: Of a core's time that the generator itself took, 0 to 1; near 1 it is what limits.
    """

    requests_per_s: float
    failed: int
    generator_share: float


class _Counts:
    """What all lanes have seen so far."""

    __slots__ = ("failed", "good")

    def __init__(self) -> None:
        self.good = 0
        self.failed = 0


class _Lane(asyncio.Protocol):
    """One connection that always has one request under way."""

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
    """Return the length of an answer's body, by its head.

    Raises:
        RunError: The head does not say.
    """
    start = data.find(b"\nContent-Length: ", 0, head_end)
    if start < 0:
        # Names of header fields may be written in any case; servers seldom change theirs.
        start = data[:head_end].lower().find(b"\ncontent-length: ")
        if start < 0:
            raise RunError("An answer without Content-Length cannot be counted.")
    start += 17
    end = data.find(b"\r", start)
    return int(data[start:end])


async def drive(
    host: str, port: int, requests: Sequence[bytes], *, connections: int, warmup_s: float, duration_s: float
) -> Throughput:
    """Keep a server busy and count.

    Args:
        host: Name or address of the server.
        port: Its TCP port.
        requests: Whole requests, sent in this order again and again over all connections.
        connections: Kept-alive connections, each with one request under way.
        warmup_s: How long to drive before counting.
        duration_s: How long to count.

    Raises:
        RunError: The server cannot be reached, closes a connection, or sends what cannot be counted.
    """
    loop = asyncio.get_running_loop()
    counts = _Counts()
    lost: asyncio.Future[None] = loop.create_future()
    stream = itertools.cycle(requests)
    lanes: list[_Lane] = []
    try:
        for _ in range(connections):
            _, lane = await loop.create_connection(lambda: _Lane(stream, counts, lost), host, port)
            lanes.append(lane)
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
        for lane in lanes:
            lane.transport.abort()
        # Transports close their sockets in the loop's next round, not at abort().
        await asyncio.sleep(0)
    return Throughput(good / took_s, failed, busy_s / took_s)
