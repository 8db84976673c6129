"""A lean closed-loop generator: each connection sends its next request when the last one is answered.

Invariant: it does little enough per request that on a core of its own it never limits a Python server; an answer counts
as good or failed by its status. It measures throughput: a closed loop hides waiting, so `recollect loadtest` measures
latencies.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ops.load.lean_connection import LeanConnection
from service.errors import RunError


@dataclass(frozen=True)
class Throughput:
    """Good and failed answers, their time, and the generator's share of a core's time, near 1 if it is the limit."""

    good: int
    failed: int
    duration_s: float
    generator_share: float

    @property
    def requests_per_s(self) -> float:
        """Good answers per second."""
        return self.good / self.duration_s


class _BusyConnection(LeanConnection):
    """One connection that always has one open request; `counts` are those of all connections."""

    def __init__(self, requests: Iterator[bytes], counts: Counter[str], lost: asyncio.Future[None]) -> None:
        self._requests = requests
        self._counts = counts
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send()

    def answered(self, head: bytes) -> None:
        self._counts["good" if head[9:12] == b"200" else "failed"] += 1
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_exception(RunError(f"The server closed a connection under load: {exc or 'end of file'}."))

    def _send(self) -> None:
        if self.transport is not None:
            self.transport.write(next(self._requests))


async def drive(
    host: str, port: int, requests: Sequence[bytes], *, connections: int, warmup_s: float, duration_s: float
) -> Throughput:
    """Send requests again and again over kept-alive connections, and count answers after a warm-up.

    Raises:
        RunError: The server is unreachable, closes a connection, or sends an answer without Content-Length.
    """
    loop = asyncio.get_running_loop()
    counts = Counter(good=0, failed=0)
    lost: asyncio.Future[None] = loop.create_future()
    stream = itertools.cycle(requests)
    opened: list[_BusyConnection] = []
    try:
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _BusyConnection(stream, counts, lost), host, port)
            opened.append(connection)
        await asyncio.wait([lost], timeout=warmup_s)
        begin_s, busy_s, before = time.perf_counter(), time.process_time(), counts.copy()
        await asyncio.wait([lost], timeout=duration_s)
        took_s, busy_s = time.perf_counter() - begin_s, time.process_time() - busy_s
        counts.subtract(before)
        if lost.done():
            lost.result()
    except OSError as error:
        raise RunError(f"{host}:{port} cannot be driven: {error}.") from error
    finally:
        if not lost.done():
            lost.cancel()
        for connection in opened:
            connection.close()
        # Transports close their sockets in the loop's next iteration, not in abort().
        await asyncio.sleep(0)
    return Throughput(counts["good"], counts["failed"], took_s, busy_s / took_s)
