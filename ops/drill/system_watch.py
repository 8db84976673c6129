"""Watches the system beside the load: what state its parts are in, and how many events wait.

The invariant: it only reads. A metric that could not be had is None, never 0.
"""

import asyncio
import contextlib
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from loadbalancer.roster import Row
from ops.drill.system import Death, System

_ROWS_EVERY_S = 0.05
_METRICS_EVERY_S = 0.5
_METRICS_TIMEOUT_S = 0.4
_ANSWER_LIMIT_BYTES = 1 << 20
# What a replica holds and the archive has not confirmed.
_WAITING = re.compile(rb"^recollect_telemetry_unarchived_events(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """A part's row changed: when (seconds on the watch's clock), and to what."""

    at_s: float
    name: str
    state: str
    pid: int | None
    restarts: int


@dataclass(frozen=True)
class Measure:
    """What was measured at one time: events that wait (None: unknown), and the load average over a minute."""

    at_s: float
    waiting: int | None
    load: float


class Watch:
    """A context in which the system is watched.

    Args:
        system: The installation.
        start_s: What counts as 0, in monotonic seconds.
    """

    def __init__(self, system: System, start_s: float) -> None:
        self._system = system
        self._start_s = start_s
        self._tasks: list[asyncio.Task[None]] = []
        self._last: dict[str, Seen] = {}
        self.seen: list[Seen] = []
        self.measures: list[Measure] = []

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        self._tasks = [asyncio.create_task(self._follow_rows()), asyncio.create_task(self._follow_metrics())]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def now_s(self) -> float:
        """Return the time on this watch's clock."""
        return time.monotonic() - self._start_s

    async def _follow_rows(self) -> None:
        while True:
            self._compare(self._system.rows())
            await asyncio.sleep(_ROWS_EVERY_S)

    def _compare(self, rows: Sequence[Row]) -> None:
        for row in rows:
            last = self._last.get(row.name)
            if last is None or (last.state, last.pid, last.restarts) != (row.state, row.pid, row.restarts):
                self._last[row.name] = Seen(self.now_s(), row.name, row.state, row.pid, row.restarts)
                self.seen.append(self._last[row.name])

    async def _follow_metrics(self) -> None:
        while True:
            began_s = self.now_s()
            rows = [row for row in self._system.rows() if row.name.startswith("replica-")]
            counts = await asyncio.gather(*(_waiting(row.admin_port) for row in rows))
            known = [count for count in counts if count is not None]
            waiting = sum(known) if rows and len(known) == len(rows) else None
            self.measures.append(Measure(began_s, waiting, os.getloadavg()[0]))
            await asyncio.sleep(max(0.0, began_s + _METRICS_EVERY_S - self.now_s()))


async def _waiting(admin_port: int | None) -> int | None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_METRICS_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", admin_port, limit=_ANSWER_LIMIT_BYTES)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n\r\n")
                found = _WAITING.search(await reader.read(-1))
                return None if found is None else int(float(found[1]))
            finally:
                writer.transport.abort()
    return None


def slowest_return_s(deaths: Sequence[Death], seen: Sequence[Seen], start_s: float) -> float | None:
    """Return the longest time from a kill until the part was ready again.

    A part that was killed again before it was ready counts from its last kill.

    Args:
        deaths: Who was killed when, in order.
        seen: The changes of rows, in order.
        start_s: What is 0 in `seen`, on the clock of `deaths`.

    Returns:
        Seconds; None if nobody was killed, or nobody came back.
    """
    slowest_s: float | None = None
    for index, death in enumerate(deaths):
        died_s = death.at_s - start_s
        again_s = next((other.at_s - start_s for other in deaths[index + 1 :] if other.name == death.name), math.inf)
        for change in seen:
            is_back = change.name == death.name and change.pid != death.pid and change.state == "ready"
            if is_back and died_s < change.at_s < again_s:
                slowest_s = max(slowest_s or 0.0, change.at_s - died_s)
                break
    return slowest_s


def caught_up_s(measures: Sequence[Measure], ended_s: float, limit: int) -> float | None:
    """Return how long after `ended_s` no more than `limit` events waited, None if that was never seen."""
    for measure in measures:
        if measure.at_s >= ended_s and measure.waiting is not None and measure.waiting <= limit:
            return measure.at_s - ended_s
    return None
