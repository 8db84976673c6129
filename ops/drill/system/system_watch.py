"""Samples the drilled system beside the load: the states of its parts, and the backlog of events.

Invariant: it only reads. A value that could not be read is None, never 0.
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

from loadbalancer.roster import Row, is_replica
from ops.drill.system.drilled_system import DrilledSystem, KilledPart

_ROWS_EVERY_S = 0.05
_METRICS_EVERY_S = 0.5
_METRICS_TIMEOUT_S = 0.4
_MAX_ANSWER_BYTES = 1 << 20
# Events that a replica holds and the archive has not confirmed.
_UNARCHIVED = re.compile(rb"^recollect_telemetry_unarchived_events(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True)
class StateChange:
    """A change of a part's row; times in seconds on the watch's clock."""

    at_s: float
    name: str
    state: str
    pid: int | None
    restarts: int


@dataclass(frozen=True)
class BacklogSample:
    """Events that wait for the archive (None: unknown), and the load average over one minute."""

    at_s: float
    waiting: int | None
    load: float


class SystemWatch:
    """A context in which the system is sampled; `start_s` is the zero of its clock, in monotonic seconds."""

    def __init__(self, system: DrilledSystem, start_s: float) -> None:
        self._system = system
        self._start_s = start_s
        self._tasks: list[asyncio.Task[None]] = []
        self._last: dict[str, StateChange] = {}
        self.changes: list[StateChange] = []
        self.backlog: list[BacklogSample] = []

    async def __aenter__(self) -> Self:
        """Start sampling."""
        self._tasks = [asyncio.create_task(self._sample_rows()), asyncio.create_task(self._sample_backlog())]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop sampling."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def now_s(self) -> float:
        """Return the time on this watch's clock."""
        return time.monotonic() - self._start_s

    async def _sample_rows(self) -> None:
        while True:
            self._add_changes(self._system.rows())
            await asyncio.sleep(_ROWS_EVERY_S)

    def _add_changes(self, rows: Sequence[Row]) -> None:
        for row in rows:
            last = self._last.get(row.name)
            if last is None or (last.state, last.pid, last.restarts) != (row.state, row.pid, row.restarts):
                self._last[row.name] = StateChange(self.now_s(), row.name, row.state, row.pid, row.restarts)
                self.changes.append(self._last[row.name])

    async def _sample_backlog(self) -> None:
        while True:
            began_s = self.now_s()
            rows = [row for row in self._system.rows() if is_replica(row)]
            counts = await asyncio.gather(*(_unarchived_events(row.admin_port) for row in rows))
            known = [count for count in counts if count is not None]
            waiting = sum(known) if rows and len(known) == len(rows) else None
            self.backlog.append(BacklogSample(began_s, waiting, os.getloadavg()[0]))
            await asyncio.sleep(max(0.0, began_s + _METRICS_EVERY_S - self.now_s()))


async def _unarchived_events(admin_port: int | None) -> int | None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_METRICS_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", admin_port, limit=_MAX_ANSWER_BYTES)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n\r\n")
                found = _UNARCHIVED.search(await reader.read(-1))
                return None if found is None else int(float(found[1]))
            finally:
                writer.transport.abort()
    return None


def slowest_return_s(kills: Sequence[KilledPart], changes: Sequence[StateChange], start_s: float) -> float | None:
    """Return the longest time from a kill until the part was ready again.

    A part that was killed again before it was ready counts from its last kill. None if no part was killed, or none came
    back; `start_s` is the zero of `changes` on the clock of `kills`.
    """
    slowest_s: float | None = None
    for index, kill in enumerate(kills):
        killed_s = kill.at_s - start_s
        again_s = next((other.at_s - start_s for other in kills[index + 1 :] if other.name == kill.name), math.inf)
        for change in changes:
            is_back = change.name == kill.name and change.pid != kill.pid and change.state == "ready"
            if is_back and killed_s < change.at_s < again_s:
                slowest_s = max(slowest_s or 0.0, change.at_s - killed_s)
                break
    return slowest_s


def catch_up_s(backlog: Sequence[BacklogSample], ended_s: float, limit: int) -> float | None:
    """Return how long after `ended_s` at most `limit` events waited, None if they never did."""
    for sample in backlog:
        if sample.at_s >= ended_s and sample.waiting is not None and sample.waiting <= limit:
            return sample.at_s - ended_s
    return None
