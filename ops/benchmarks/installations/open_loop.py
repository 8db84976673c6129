"""A lean open-loop generator: requests are sent when they are due, whether or not earlier ones are answered.

Invariant: every due request ends in exactly one way: an answer with its status, a broken connection, no answer within
the client's patience, or unsent because every connection had an open request. It does little per request, for it has to
offer several times what the service can do.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from ops.load.lean_connection import LeanConnection

RawKind = Literal["list", "event", "health", "ready"]
_TICK_S: Final = 0.001
_PATIENCE_S: Final = 2.0
# The most connections opened in one tick.
_MAX_CONNECTS: Final = 20


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request in its wire format, with its kind."""

    kind: RawKind
    raw: bytes


@dataclass
class KindTally:
    """The ends of the requests of one kind.

    Attributes:
        due: The number of requests to send.
        statuses: Answers by status.
        static: Lists that nginx answered (`X-Degraded: static`).
        unexplained: Refusals without Retry-After.
        broken: Connections that ended before an answer.
        late: Requests without an answer within the client's patience.
        unsent: Requests without a free connection.
        served_s: The latency of each 2xx.
        refused_s: The latency of each 429 and 503.
    """

    due: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    static: int = 0
    unexplained: int = 0
    broken: int = 0
    late: int = 0
    unsent: int = 0
    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)

    @property
    def good(self) -> int:
        """Answers with 2xx in full service."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300) - self.static

    @property
    def refused(self) -> int:
        """Answers with 429 or 503."""
        return self.statuses[429] + self.statuses[503]

    @property
    def failed(self) -> int:
        """All other ends of sent requests."""
        return sum(self.statuses.values()) - self.good - self.static - self.refused + self.broken + self.late


@dataclass
class LoadRound:
    """The tallies of one round, by kind, and its length."""

    tallies: dict[RawKind, KindTally] = field(default_factory=lambda: {kind: KindTally() for kind in get_args(RawKind)})
    took_s: float = 0.0

    def goodput_rps(self) -> float:
        """Return the good lists and events per second."""
        return (self.tallies["list"].good + self.tallies["event"].good) / self.took_s

    def offered_rps(self) -> float:
        """Return the due lists and events per second."""
        return (self.tallies["list"].due + self.tallies["event"].due) / self.took_s


class _TimedConnection(LeanConnection):
    """A connection with at most one open request; it keeps itself in the sets of free or waiting ones."""

    def __init__(self, free: "list[_TimedConnection]", waiting: "set[_TimedConnection]") -> None:
        self._free, self._waiting = free, waiting
        self._tally: KindTally | None = None
        self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._free.append(self)

    def send(self, request: RawRequest, tally: KindTally, now_s: float) -> None:
        self._tally, self.sent_s = tally, now_s
        self._waiting.add(self)
        if self.transport is not None:
            self.transport.write(request.raw)

    def abandon(self) -> None:
        """End an open request as late, and close the connection."""
        if self._tally is not None:
            self._tally.late += 1
            self._tally = None
        self._waiting.discard(self)
        self.close()

    def answered(self, head: bytes) -> None:
        tally, self._tally = self._tally, None
        self._waiting.discard(self)
        if tally is not None:
            _count(tally, head, time.perf_counter() - self.sent_s)
        if b"\r\nConnection: close" in head:
            self.close()
        else:
            self._free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self in self._free:
            self._free.remove(self)
        self._waiting.discard(self)
        if self._tally is not None:
            self._tally.broken += 1
            self._tally = None


def _count(tally: KindTally, head: bytes, took_s: float) -> None:
    status = int(head[9:12])
    tally.statuses[status] += 1
    if b"\r\nX-Degraded: static\r\n" in head:
        tally.static += 1
    elif 200 <= status < 300:
        tally.served_s.append(took_s)
    elif status in {429, 503}:
        tally.refused_s.append(took_s)
        tally.unexplained += b"\r\nRetry-After: " not in head


async def run_closed_loop(
    host: str, port: int, requests: Sequence[RawRequest], *, connections: int, duration_s: float
) -> LoadRound:
    """Keep connections busy, each with its next request once the last one is answered."""
    return await _drive(host, port, requests, connections=connections, duration_s=duration_s)


async def run_open_loop(
    host: str,
    port: int,
    requests: Sequence[RawRequest],
    *,
    rate_rps: float,
    connections: int,
    duration_s: float,
    patience_s: float = _PATIENCE_S,
) -> LoadRound:
    """Send requests again and again at a rate.

    Args:
        host: Name or address of the server.
        port: Its TCP port.
        requests: Sent in this order.
        rate_rps: Requests per second.
        connections: The most open ones; a due request without a free one is never sent.
        duration_s: The length of the round.
        patience_s: The most time of a request; its connection is closed then.
    """
    return await _drive(
        host,
        port,
        requests,
        connections=connections,
        duration_s=duration_s,
        rate_rps=rate_rps,
        patience_s=patience_s,
    )


async def _drive(
    host: str,
    port: int,
    requests: Sequence[RawRequest],
    *,
    connections: int,
    duration_s: float,
    rate_rps: float | None = None,
    patience_s: float = _PATIENCE_S,
) -> LoadRound:
    loop = asyncio.get_running_loop()
    result = LoadRound(took_s=duration_s)
    stream = itertools.cycle(requests)
    free: list[_TimedConnection] = []
    waiting: set[_TimedConnection] = set()
    opened: list[_TimedConnection] = []
    opening: set[asyncio.Task[None]] = set()

    async def connect() -> None:
        with contextlib.suppress(OSError):
            _, connection = await loop.create_connection(lambda: _TimedConnection(free, waiting), host, port)
            opened.append(connection)

    for _ in range(connections):
        await connect()
    begin_s = time.perf_counter()
    due = 0
    while (elapsed_s := time.perf_counter() - begin_s) < duration_s:
        count = len(free) if rate_rps is None else int(rate_rps * elapsed_s) - due
        now_s = time.perf_counter()
        for request in itertools.islice(stream, count):
            tally = result.tallies[request.kind]
            tally.due += 1
            due += 1
            if free:
                free.pop(0).send(request, tally, now_s)
            else:
                tally.unsent += 1
        for connection in [one for one in waiting if now_s - one.sent_s > patience_s]:
            connection.abandon()
        missing = connections - len(free) - len(waiting) - len(opening)
        for _ in range(min(missing, _MAX_CONNECTS)):
            task = loop.create_task(connect())
            opening.add(task)
            task.add_done_callback(opening.discard)
        await asyncio.sleep(_TICK_S)
    # Open requests were due within the round, so they keep their time.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while waiting:  # noqa: ASYNC110 (there is no event for the last of many answers)
                await asyncio.sleep(_TICK_S)
    for connection in list(waiting):
        connection.abandon()
    for connection in opened:
        connection.close()
    await asyncio.gather(*opening, return_exceptions=True)
    # Transports close their sockets in the loop's next iteration, not in abort().
    await asyncio.sleep(0)
    return result
