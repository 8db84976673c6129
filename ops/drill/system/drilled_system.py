"""The system under drill: its roster, processes and ports.

Invariant: a signal reaches only processes that belong to a part at that moment, by group and output file, and never the
drill itself.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from loadbalancer import roster
from loadbalancer.roster import Row
from loadbalancer.supervision.processes import group_members
from ops.drill.faults.clocks import Clocks
from ops.drill.faults.proxy import Proxy
from ops.drill.system.needs import Need, RunningParts
from ops.drill.system.output_pipe import OutputPipe

T = TypeVar("T")

REDIS, CONSUMER = "redis", "consumer"
_WORKER = "/worker"


def required(instrument: T | None) -> T:
    """Return an instrument that a fault needs, which `DrilledSystem.unmet_reason` has checked."""
    if instrument is None:
        raise AssertionError("A fault is injected only where its needs are met.")
    return instrument


@dataclass(frozen=True)
class KilledPart:
    """A part that was killed: when (monotonic seconds), and its process."""

    at_s: float
    name: str
    pid: int


@dataclass(frozen=True)
class Instruments:
    """The instruments around a system that the drill started; None for one that could not be set up.

    Attributes:
        lacking: Why an instrument is missing, by need.
    """

    output: OutputPipe
    redis: int | Path | None = None
    proxy: Proxy | None = None
    clocks: Clocks | None = None
    spool_disk: Path | None = None
    log_disk: Path | None = None
    lacking: Mapping[Need, str] = field(default_factory=dict)


class DrilledSystem:
    """One installation under drill.

    Args:
        home: Its RECOLLECT_HOME.
        logs: Its RECOLLECT_LOGS.
        environ: The environment of commands about it.
        instruments: The drill's instruments; None for an installation that ran before the drill.

    Attributes:
        kills: The parts that were killed, in order.
        problems: Problems that faults observed, one clause each.
        missed_injections: Injections whose targets did not run.
    """

    def __init__(
        self, home: Path, logs: Path, environ: Mapping[str, str], instruments: Instruments | None = None
    ) -> None:
        self.home = home
        self.logs = logs
        self.environ = dict(environ)
        self.instruments = instruments
        self.kills: list[KilledPart] = []
        self.problems: list[str] = []
        self.missed_injections = 0

    @property
    def archive(self) -> Path:
        """The archive of its events."""
        return self.home / "archive"

    @property
    def redis_files(self) -> Path:
        """The folder of the append-only file of the Redis that `up` starts."""
        return self.home / "redis"

    def rows(self) -> list[Row]:
        """Return the current rows of run/topology.json."""
        return roster.read(self.home)

    def row(self, name: str) -> Row | None:
        """Return the current row of a part, or None."""
        return next((row for row in self.rows() if row.name == name), None)

    def parts(self) -> RunningParts:
        """Return the names of the parts."""
        names = [row.name for row in self.rows()]
        return RunningParts(
            replicas=tuple(name for name in names if name.startswith("replica-")),
            balancers=tuple(name for name in names if name.startswith("nginx-")),
            redis=REDIS in names,
            consumer=CONSUMER in names,
        )

    def redis(self) -> int | Path | None:
        """Return the port or socket of Redis itself, behind any proxy; None if it belongs to no part."""
        if self.instruments is not None and self.instruments.redis is not None:
            return self.instruments.redis
        row = self.row(REDIS)
        return None if row is None or row.host is None else Path(row.host)

    def ready(self) -> bool:
        """Whether every part is ready."""
        rows = self.rows()
        return bool(rows) and all(row.state == "ready" for row in rows)

    def unmet_reason(self, need: Need) -> str | None:
        """Return why a need is not met, or None if it is."""
        parts, instruments = self.parts(), self.instruments
        if instruments is not None and need in instruments.lacking:
            return instruments.lacking[need]
        met = {
            Need.REDIS: self.redis() is not None,
            Need.REDIS_FILES: parts.redis and self.redis_files.is_dir(),
            Need.THREE_REPLICAS: len(parts.replicas) >= 3,
            Need.STRACE: shutil.which("strace") is not None,
            Need.LINK: instruments is not None and instruments.proxy is not None,
            Need.OWN_REDIS: instruments is not None and instruments.redis is not None,
            Need.SPOOL_DISK: instruments is not None and instruments.spool_disk is not None,
            Need.LOG_DISK: instruments is not None and instruments.log_disk is not None,
            Need.OUTPUT: instruments is not None,
            Need.CLOCKS: instruments is not None and instruments.clocks is not None,
        }
        return None if met[need] else f"it needs {need.value}"

    def send_signal(self, target: str, number: signal.Signals, draw: float = 0.0) -> list[int]:
        """Send a signal to every process of a part, or, for `NAME/worker`, to the worker that `draw` (0 to 1) chooses.

        Returns:
            The pids that got it; none if the part does not run.
        """
        row = self.row(target.removesuffix(_WORKER))
        if row is None or row.pid is None:
            return []
        pids = sorted(group_members(row.pid, row.output))
        if target.endswith(_WORKER):
            workers = [pid for pid in pids if pid != row.pid]
            pids = workers[int(draw * len(workers)) :][:1]
        reached = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                reached.append(pid)
        if reached and number is signal.SIGKILL and not target.endswith(_WORKER):
            self.kills.append(KilledPart(time.monotonic(), row.name, row.pid))
        return reached

    def signal_leader(self, target: str, number: signal.Signals) -> bool:
        """Send a signal to a part's first process alone; return whether it runs."""
        row = self.row(target)
        if row is None or row.pid is None or row.pid not in group_members(row.pid, row.output):
            return False
        os.kill(row.pid, number)
        return True
