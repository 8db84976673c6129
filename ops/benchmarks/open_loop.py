"""A lean open-loop generator: requests are sent when they are due, whether or not earlier ones are answered.

The invariant: every request that was due ends in exactly one way: an answer with its status, a broken connection, no
answer within the client's patience, or never sent because every connection was still waiting for an answer. It does as
little as it can per request, for it has to offer several times what the service can do.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from ops.load.closed_loop import content_length

Kind = Literal["list", "event", "health"]
_TICK_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Request:
    """A request and what it is about."""

    kind: Kind
    raw: bytes


@dataclass
class Tally:
    """What became of the requests of one kind.

    Attributes:
        due: How many were to be sent.
        statuses: Answers, by status.
        static: Of them, lists that nginx gave (`X-Degraded: static`).
        unexplained: Refusals without Retry-After.
        broken: Connections that ended instead of an answer.
        late: No answer within the client's patience.
        unsent: Never sent, for want of a connection.
        served_s: How long each 2xx took; refused_s: each 429 and 503.
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
        """Answers that are what was asked for."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300) - self.static

    @property
    def refused(self) -> int:
        """Answers that say to come back later."""
        return self.statuses[429] + self.statuses[503]

    @property
    def failed(self) -> int:
        """All other ends."""
        return sum(self.statuses.values()) - self.good - self.static - self.refused + self.broken + self.late


@dataclass
class Round:
    """One round.

    Attributes:
        tallies: By kind.
        took_s: How long it went on.
    """

    tallies: dict[Kind, Tally] = field(default_factory=lambda: {"list": Tally(), "event": Tally(), "health": Tally()})
    took_s: float = 0.0

    def goodput_rps(self) -> float:
        """Lists and events that were answered as asked, each second."""
        return (self.tallies["list"].good + self.tallies["event"].good) / self.took_s

    def offered_rps(self) -> float:
        """Lists and events that were due, each second."""
        return (self.tallies["list"].due + self.tallies["event"].due) / self.took_s


class _Lane(asyncio.Protocol):
    """One connection with one request under way at most."""

    def __init__(self, free: "list[_Lane]", waiting: "set[_Lane]") -> None:
        self._free, self._waiting = free, waiting
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._tally: Tally | None = None
        self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._free.append(self)

    def send(self, request: Request, tally: Tally, now_s: float) -> None:
        self._tally, self.sent_s = tally, now_s
        self._waiting.add(self)
        if self._transport is not None:
            self._transport.write(request.raw)

    def give_up(self) -> None:
        """End a request whose client has lost patience; its connection goes with it."""
        if self._tally is not None:
            self._tally.late += 1
            self._tally = None
        self._waiting.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or len(data) < head_end + 4 + content_length(data, head_end):
            self._pending = data
            return
        self._pending = b""
        tally, self._tally = self._tally, None
        self._waiting.discard(self)
        closing = b"\r\nConnection: close" in data[: head_end + 2]
        if tally is not None:
            _count(tally, data[: head_end + 2], time.perf_counter() - self.sent_s)
        if closing and self._transport is not None:
            self._transport.abort()
        else:
            self._free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self in self._free:
            self._free.remove(self)
        self._waiting.discard(self)
        if self._tally is not None:
            self._tally.broken += 1
            self._tally = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _count(tally: Tally, head: bytes, took_s: float) -> None:
    status = int(head[9:12])
    tally.statuses[status] += 1
    if b"\r\nX-Degraded: static\r\n" in head:
        tally.static += 1
    elif 200 <= status < 300:
        tally.served_s.append(took_s)
    elif status in {429, 503}:
        tally.refused_s.append(took_s)
        tally.unexplained += b"\r\nRetry-After: " not in head


async def closed(host: str, port: int, requests: Sequence[Request], *, connections: int, duration_s: float) -> Round:
    """Keep so many connections busy, each with its next request once the last one was answered."""
    return await _drive(host, port, requests, connections=connections, duration_s=duration_s, rate_rps=None)


async def offer(
    host: str,
    port: int,
    requests: Sequence[Request],
    *,
    rate_rps: float,
    connections: int,
    duration_s: float,
    patience_s: float = 2.0,
) -> Round:
    """Send requests at a rate, whatever becomes of them.

    Args:
        host: Name or address of the server.
        port: Its TCP port.
        requests: Sent in this order again and again.
        rate_rps: Requests per second.
        connections: The most that are open; a request that is due while all wait for an answer is never sent.
        duration_s: How long to go on.
        patience_s: How long a request may take; its connection is given up then.
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
    requests: Sequence[Request],
    *,
    connections: int,
    duration_s: float,
    rate_rps: float | None,
    patience_s: float = 2.0,
) -> Round:
    loop = asyncio.get_running_loop()
    result = Round()
    stream = itertools.cycle(requests)
    free: list[_Lane] = []
    waiting: set[_Lane] = set()
    lanes: list[_Lane] = []
    opening: set[asyncio.Task[None]] = set()

    async def connect() -> None:
        try:
            _, lane = await loop.create_connection(lambda: _Lane(free, waiting), host, port)
        except OSError:
            return
        lanes.append(lane)

    for _ in range(connections):
        await connect()
    begin_s = time.perf_counter()
    due = 0
    while (elapsed_s := time.perf_counter() - begin_s) < duration_s:
        wanted = len(free) if rate_rps is None else int(rate_rps * elapsed_s) - due
        now_s = time.perf_counter()
        for _ in range(wanted):
            request = next(stream)
            tally = result.tallies[request.kind]
            tally.due += 1
            due += 1
            if free:
                free.pop(0).send(request, tally, now_s)
            else:
                tally.unsent += 1
        for lane in [lane for lane in waiting if now_s - lane.sent_s > patience_s]:
            lane.give_up()
        missing = connections - len(free) - len(waiting) - len(opening)
        for _ in range(min(missing, 20)):
            task = loop.create_task(connect())
            opening.add(task)
            task.add_done_callback(opening.discard)
        await asyncio.sleep(_TICK_S)
    # What is under way has its time; it was due within the round.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while waiting:  # noqa: ASYNC110 (nothing tells when the last of many is answered)
                await asyncio.sleep(_TICK_S)
    for lane in list(waiting):
        lane.give_up()
    result.took_s = duration_s
    for lane in lanes:
        lane.close()
    await asyncio.gather(*opening, return_exceptions=True)
    # Transports close their sockets in the loop's next round, not at abort().
    await asyncio.sleep(0)
    return result
