"""The system under drill as its operators see it: rows of run/topology.json, processes, ports.

The invariant: a signal goes only to a process that is a part's own at that moment (its group and its output file say
so), and never to the drill. What a fault finds wrong by itself is kept here, in words.
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
from loadbalancer.processes import group_members
from loadbalancer.roster import Row
from ops.drill.faults.clocks import Clocks
from ops.drill.faults.proxy import Proxy
from ops.drill.needs import Need, RunningParts
from ops.drill.output import Output

T = TypeVar("T")

REDIS, CONSUMER = "redis", "consumer"
_WORKER = "/worker"


def have(thing: T | None) -> T:
    """Return what a fault's needs promised to be there."""
    if thing is None:
        raise AssertionError("a fault is done only where its needs are met")
    return thing


@dataclass(frozen=True)
class Death:
    """A part that was killed: when (monotonic seconds), and which process it was."""

    at_s: float
    name: str
    pid: int


@dataclass(frozen=True)
class Prepared:
    """What the drill put round an installation of its own; None is what could not be had here.

    Attributes:
        lacking: Why it could not be had.
    """

    output: Output
    redis: int | Path | None = None
    proxy: Proxy | None = None
    clocks: Clocks | None = None
    spool_disk: Path | None = None
    log_disk: Path | None = None
    lacking: Mapping[Need, str] = field(default_factory=dict)


class System:
    """One installation.

    Args:
        home: Its RECOLLECT_HOME.
        logs: Its RECOLLECT_LOGS.
        environ: The environment of commands that are about it.
        prepared: What the drill put round it; None for an installation that somebody else started.
    """

    def __init__(self, home: Path, logs: Path, environ: Mapping[str, str], prepared: Prepared | None = None) -> None:
        self.home = home
        self.logs = logs
        self.environ = dict(environ)
        self.prepared = prepared
        self.deaths: list[Death] = []
        self.complaints: list[str] = []
        # Strikes whose targets were all away.
        self.missed = 0

    @property
    def archive(self) -> Path:
        """Where its events end up."""
        return self.home / "archive"

    @property
    def redis_files(self) -> Path:
        """Where the Redis that `up` started keeps its append-only file."""
        return self.home / "redis"

    def rows(self) -> list[Row]:
        """Return what run/topology.json says now."""
        return roster.read(self.home)

    def row(self, name: str) -> Row | None:
        """Return one part's row, None if there is none now."""
        return next((row for row in self.rows() if row.name == name), None)

    def parts(self) -> RunningParts:
        """Return the names of what runs."""
        names = [row.name for row in self.rows()]
        return RunningParts(
            replicas=tuple(name for name in names if name.startswith("replica-")),
            balancers=tuple(name for name in names if name.startswith("nginx-")),
            redis=REDIS in names,
            consumer=CONSUMER in names,
        )

    def redis(self) -> int | Path | None:
        """Return the port or socket of Redis itself, behind any proxy of ours; None without one of its own."""
        if self.prepared is not None and self.prepared.redis is not None:
            return self.prepared.redis
        row = self.row(REDIS)
        return None if row is None or row.host is None else Path(row.host)

    def ready(self) -> bool:
        """Whether every part is ready."""
        rows = self.rows()
        return bool(rows) and all(row.state == "ready" for row in rows)

    def lacks(self, need: Need) -> str | None:
        """Say why a fault with this need cannot be done here; None if it can."""
        if self.prepared is not None and need in self.prepared.lacking:
            return self.prepared.lacking[need]
        parts, prepared = self.parts(), self.prepared
        have = {
            Need.REDIS: self.redis() is not None,
            Need.REDIS_FILES: parts.redis and self.redis_files.is_dir(),
            Need.THREE_REPLICAS: len(parts.replicas) >= 3,
            Need.STRACE: shutil.which("strace") is not None,
            Need.LINK: prepared is not None and prepared.proxy is not None,
            Need.OWN_REDIS: prepared is not None and prepared.redis is not None,
            Need.SPOOL_DISK: prepared is not None and prepared.spool_disk is not None,
            Need.LOG_DISK: prepared is not None and prepared.log_disk is not None,
            Need.OUTPUT: prepared is not None,
            Need.CLOCKS: prepared is not None and prepared.clocks is not None,
        }
        return None if have[need] else f"it needs {need.value}"

    def send(self, target: str, number: signal.Signals, draw: float = 0.0) -> list[int]:
        """Send a signal to every process of a part, or, for `NAME/worker`, to one of its workers.

        Args:
            target: The part.
            number: The signal.
            draw: Chooses the worker, 0 to 1.

        Returns:
            The processes that got it; none if the part does not run at the moment.
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
            self.deaths.append(Death(time.monotonic(), row.name, row.pid))
        return reached

    def lead(self, target: str, number: signal.Signals) -> bool:
        """Send a signal to a part's first process alone; return whether it runs."""
        row = self.row(target)
        if row is None or row.pid is None or row.pid not in group_members(row.pid, row.output):
            return False
        os.kill(row.pid, number)
        return True

    def complain(self, sentence: str) -> None:
        """Keep what a fault found wrong."""
        self.complaints.append(sentence)
