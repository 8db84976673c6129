"""A whole drill: one stage for each kind of system that its faults need.

Invariant: however a drill ends, its faults are undone, and a system that it started is stopped and removed.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loadbalancer import roster
from loadbalancer.topology import reachable
from ops.drill.faults.fault import Fault, SystemKind
from ops.drill.frozen_redis import FrozenRedisComparison, compare_frozen_redis
from ops.drill.oracle import Oracle
from ops.drill.stage import DrillSpec, Stage, run_stage
from ops.drill.system.drilled_system import DrilledSystem
from ops.drill.system.needs import Need
from ops.drill.system.own_system import default_system, instrumented_system
from ops.load.population import Target
from ops.loadtest import parse_url, require_plain_http
from service.config import Config
from service.errors import UsageError


@dataclass(frozen=True)
class Drill:
    """One drill with checked options.

    Attributes:
        spec: Rates and times.
        faults: The faults.
        data: The training data of a system that the drill starts.
        replicas: The number of replicas of that system.
        config: Every setting of the service.
        running: Whether to drill the system that runs in the configured home; else the drill starts one.
        url: The address of the running system, None to read it from its topology.
        key: The API key that it asks for, or None.
        keep: Whether to keep the folder of a system that the drill started.
        notify: Called with a line about each step.
    """

    spec: DrillSpec
    faults: tuple[Fault, ...]
    data: str
    replicas: int
    config: Config
    running: bool
    url: str | None
    key: str | None
    keep: bool
    notify: Callable[[str], None]

    async def run(self) -> tuple[list[Stage], list[tuple[Fault, str]]]:
        """Run every stage.

        Returns:
            The stages, and the faults for which there was no system, with the reason.
        """
        stages: list[Stage] = []
        skipped: list[tuple[Fault, str]] = []
        for kind in SystemKind:
            faults = [fault for fault in self.faults if fault.kind is kind]
            if faults and kind is SystemKind.INSTRUMENTED and self.running:
                skipped += [(fault, "it needs a system that the drill starts itself") for fault in faults]
            elif faults:
                stages.append(await self._run_stage(kind, faults))
        return stages, skipped

    async def compare(self, pairs: int) -> FrozenRedisComparison:
        """Compare the latencies of lists with Redis frozen and running.

        Raises:
            UsageError: The system has no Redis of its own.
        """
        async with self._system(SystemKind.DEFAULT) as (system, target):
            reason = system.unmet_reason(Need.REDIS)
            if reason is not None:
                raise UsageError(f"Nothing can be compared: {reason}.")
            return await compare_frozen_redis(
                system,
                target,
                pairs=pairs,
                run_s=self.spec.duration_s,
                rate_rps=self.spec.rate_rps,
                seed=self.spec.seed,
                notify=self.notify,
            )

    async def _run_stage(self, kind: SystemKind, faults: Sequence[Fault]) -> Stage:
        # A clock an hour behind must not date events before the first day that is read.
        since = (datetime.now(UTC) - timedelta(hours=2)).date()
        oracle = Oracle(self.config.pseudonymiser().pseudonym)
        async with self._system(kind) as (system, target):
            title = "running system" if self.running else kind.value
            return await run_stage(title, system, target, faults, self.spec, oracle, since, self.notify)

    @contextlib.asynccontextmanager
    async def _system(self, kind: SystemKind) -> AsyncIterator[tuple[DrilledSystem, Target]]:
        if self.running:
            yield _running_system(self.config, self.url, self.key)
            return
        # Short: nginx and Redis limit the length of paths.
        folder = Path(tempfile.mkdtemp(prefix="recollect-chaos-"))
        start = default_system if kind is SystemKind.DEFAULT else instrumented_system
        try:
            self.notify(f"Starting a system in {folder}, {kind.value}.")
            async with start(folder, self.data, self.replicas) as (system, target):
                yield system, target
        finally:
            if self.keep:
                self.notify(f"{folder} is kept.")
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _running_system(config: Config, url: str | None, key: str | None) -> tuple[DrilledSystem, Target]:
    rows = [row for row in roster.read(config.home) if row.name.startswith("nginx-")]
    if not rows:
        raise UsageError(f"Nothing runs in {config.home}: there is no run/topology.json with a balancer.")
    # The logs of that system; the settings here may name others.
    logs = Path(rows[0].output).parent
    environ = {**os.environ, "RECOLLECT_HOME": str(config.home), "RECOLLECT_LOGS": str(logs)}
    system = DrilledSystem(config.home, logs, environ)
    host, port = rows[0].host, rows[0].port
    if url is not None:
        return system, parse_url(url, key)
    require_plain_http()
    if host is None or port is None:
        raise UsageError(f"The topology in {config.home} has no address of the balancer; name it with --url.")
    return system, Target(reachable(host), port, "", key)
