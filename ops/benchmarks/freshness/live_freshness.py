"""The freshness of live lists on an installation under load: quiet, through faults, and after everything was lost.

Invariant: all of it goes through the balancer, except the stop-watch's questions, which each replica answers itself.
"""

import asyncio
import contextlib
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.benchmarks.freshness import faults
from ops.benchmarks.freshness.stopwatch import Probe, Stopwatch
from ops.benchmarks.workbench import replica_admin_ports, wait_until_archived
from ops.drill.system import redis_commands
from ops.drill.system.drilled_system import DrilledSystem
from ops.drill.system.own_system import default_system
from ops.drill.system.recollect_commands import run_recollect
from ops.load.attack import Attack, ClientRules
from ops.load.http_connection import HttpClient
from ops.load.pacing import schedule
from ops.load.population import Population, Target, discover
from ops.load.summary import Summary
from ops.load.traffic import MAX_EVENTS, Mix, Traffic
from service.errors import RunError

HEADINGS: Final = ("phase", "probes", "p50", "p99", "slowest", "promise")
_MEAN_EVENTS: Final = (1 + MAX_EVENTS) / 2
_CONNECTIONS: Final = 64
_TRAIN_LIMIT_S: Final = 300.0
_SETTLE_S: Final = 20.0
_COMPARED_USERS: Final = 100
_ERASED_WITHIN_S: Final = 1.0
# Of a user who was erased and is not in the model.
_NOTHING: Final[dict[str, Any]] = {"events": [], "state_watermark": None, "interactions": []}
_MS_PER_S: Final = 1e3


@dataclass(frozen=True)
class Phase:
    """A part of a run: a fault, and how long a list may lack an event.

    Attributes:
        share: The share of events that keeps the promise; 1 for all.
    """

    name: str
    fault: faults.Fault
    limit_s: float
    share: float = 0.99


PHASES: Final = (
    Phase("quiet", faults.nothing, 1.0),
    Phase("rolling restart", faults.restart_replicas, 1.0),
    Phase("model swap", faults.swap_models, 1.0),
    Phase("kill -9 of the consumer", faults.kill_consumer, 5.0, share=1.0),
)


@dataclass(frozen=True, kw_only=True)
class FreshnessPlan:
    """The options of a run.

    Attributes:
        data: As for `recollect up`.
        second_algorithm: Of the model that swaps alternate with.
        lists_per_s, events_per_s: The load besides the probes.
        probes_per_s: How many events are followed.
        seconds: The length of a phase.
    """

    data: str = "demo"
    second_algorithm: str = "pure_svd"
    replicas: int = 3
    lists_per_s: float = 500.0
    events_per_s: float = 200.0
    probes_per_s: float = 4.0
    seconds: float = 20.0
    phases: Sequence[Phase] = PHASES
    seed: int = 1


@dataclass
class Freshness:
    """What was measured.

    Attributes:
        probes: By phase.
        load: Failures of the other requests, by phase.
        unequal: What differed between replicas, or from before, as sentences.
        erased_s: Seconds until no replica knew an erased user.
    """

    probes: dict[str, list[Probe]] = field(default_factory=dict)
    load: dict[str, dict[str, int]] = field(default_factory=dict)
    unequal: list[str] = field(default_factory=list)
    erased_s: float = 0.0

    def delays_s(self, phase: str) -> list[float]:
        """Return the delay of each probe at each replica, ascending."""
        return sorted(delay for probe in self.probes[phase] for delay in probe.delays_s.values())

    def broken_promises(self, phases: Sequence[Phase]) -> Iterator[str]:
        """Yield a sentence for each promise that did not hold."""
        for phase in phases:
            delays = self.delays_s(phase.name)
            found_s = _quantile(delays, phase.share)
            if found_s > phase.limit_s:
                share = f"the {phase.share:.0%} quantile of the delays" if phase.share < 1 else "the longest delay"
                yield f"{phase.name}: {share} was {found_s:.2f} s, and is promised to be at most {phase.limit_s:g} s"
            if late := sum(len(probe.late) for probe in self.probes[phase.name]):
                yield f"{phase.name}: {late} lists never had their event"
        if self.erased_s > _ERASED_WITHIN_S:
            yield f"a replica knew an erased user for {self.erased_s:.2f} s, and {_ERASED_WITHIN_S:g} s are promised"
        yield from self.unequal

    def figures(self) -> dict[str, Any]:
        """Return the delays of each phase, of each replica and of all, as plain values."""
        phases: dict[str, Any] = {}
        for name, probes in self.probes.items():
            replicas = sorted({replica for probe in probes for replica in probe.delays_s})
            phases[name] = {
                "probes": len(probes),
                "all": _summary(self.delays_s(name)),
                **{one: _summary(sorted(probe.delays_s[one] for probe in probes)) for one in replicas},
                "load_failures": self.load[name],
            }
        return {"phases": phases, "unequal": self.unequal, "erased_ms": round(self.erased_s * _MS_PER_S, 1)}


async def measure(plan: FreshnessPlan, folder: Path, on_progress: Callable[[str], None]) -> Freshness:
    """Run the phases on an installation of its own, then lose Redis' data, then restart everything.

    Args:
        folder: An empty folder.

    Raises:
        RunError: The installation did not come up, or a fault could not be inflicted.
    """
    result = Freshness()
    async with _system(plan, folder) as run:
        if any(phase.fault is faults.swap_models for phase in plan.phases):
            await _train_another(plan, run.system)
        for phase in plan.phases:
            await _measure_phase(run, phase, result)
            delays = result.delays_s(phase.name)
            on_progress(f"{phase.name}: p99 {_quantile(delays, 0.99):.3f} s, slowest {delays[-1]:.3f} s")
        await run.settle()
        before = await _compared(run, None, "at rest", result)
        redis = run.system.redis()
        if redis is None:
            raise RunError("The installation has no Redis of its own.")
        await redis_commands.call(redis, "FLUSHALL")
        # An event that is on every replica shows that the feed has begun again.
        await run.stopwatch.probe(new_user=True)
        await run.settle()
        await _compared(run, before, "after FLUSHALL", result)
        on_progress("compared all replicas before and after FLUSHALL")
        erased = run.stopwatch.users[0]
        result.erased_s = await run.stopwatch.erase(erased)
        on_progress(f"a user was erased from all replicas in {result.erased_s:.3f} s")
        await run.settle()
        before[erased] = {**before[erased], **_NOTHING}
    async with _system(plan, folder) as run:
        await run.settle()
        await _compared(run, before, "after a restart of everything", result)
        on_progress("compared all replicas after a restart of everything")
    return result


def rows(result: Freshness, phases: Sequence[Phase]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table under `HEADINGS`."""
    for phase in phases:
        figures = _summary(result.delays_s(phase.name))
        share = "all" if phase.share == 1 else f"{phase.share:.0%}"
        times = (f"{figures[name]:,.0f} ms" for name in ("p50_ms", "p99_ms", "max_ms"))
        yield phase.name, str(len(result.probes[phase.name])), *times, f"{share} within {phase.limit_s:g} s"


@dataclass
class _Run:
    """A running installation with its stop-watch and its load."""

    plan: FreshnessPlan
    system: DrilledSystem
    target: Target
    client: HttpClient
    population: Population
    traffic: Traffic
    stopwatch: Stopwatch

    def replicas(self) -> dict[str, int]:
        """Return the ports of the replicas by name."""
        return replica_ports(self.system)

    async def settle(self) -> None:
        """Wait until everything is archived and every replica lists in full service.

        Raises:
            RunError: It took too long.
        """
        await asyncio.to_thread(wait_until_archived, replica_admin_ports(self.system.home))
        deadline_s = time.monotonic() + _SETTLE_S
        while not self.system.ready():
            if time.monotonic() > deadline_s:
                raise RunError(f"After {_SETTLE_S:g} s a part was not ready.")
            await asyncio.sleep(0.1)


def replica_ports(system: DrilledSystem) -> dict[str, int]:
    """Return the ports of the replicas by name."""
    return {row.name: row.port for row in system.rows() if row.name.startswith("replica-") and row.port is not None}


@contextlib.asynccontextmanager
async def _system(plan: FreshnessPlan, folder: Path) -> AsyncIterator[_Run]:
    async with default_system(folder, plan.data, plan.replicas) as (system, target):
        client = HttpClient(target.host, target.port, _CONNECTIONS)
        run_id = f"freshness-{secrets.token_hex(4)}"
        population = await discover(client, target, None, system.home / "models")
        feedback = plan.events_per_s / _MEAN_EVENTS
        mix = Mix(feedback=feedback / max(feedback + plan.lists_per_s, 1e-9))
        traffic = Traffic(
            population, mix, _rng(plan, "traffic"), headers=target.headers, base_path="", run_id=f"load-{run_id}"
        )
        stopwatch = Stopwatch(target, lambda: replica_ports(system), population.items, run_id)
        try:
            yield _Run(plan, system, target, client, population, traffic, stopwatch)
        finally:
            await stopwatch.aclose()
            await client.aclose()


async def _train_another(plan: FreshnessPlan, system: DrilledSystem) -> None:
    arguments = ("train", "--data", plan.data, "--algorithm", plan.second_algorithm, "--no-activate")
    result = await run_recollect(*arguments, environ=system.environ, limit_s=_TRAIN_LIMIT_S)
    if result.status != 0:
        raise RunError(f"The second model was not trained: {result.stderr.decode(errors='replace').strip()[-200:]}")


async def _measure_phase(run: _Run, phase: Phase, result: Freshness) -> None:
    """Run the load, the fault and the probes at once."""
    plan, summary = run.plan, Summary()
    attack = Attack(run.client, run.traffic, ClientRules(retries=2), _rng(plan, phase.name), summary.add)
    rate = plan.lists_per_s + plan.events_per_s / _MEAN_EVENTS
    probes: list[Probe] = []

    async def probe() -> None:
        probes.append(await run.stopwatch.probe())

    async with asyncio.TaskGroup() as group:
        if rate:
            group.create_task(attack.run(schedule("poisson", rate, plan.seconds, _rng(plan, "pacing"))))
        fault = asyncio.ensure_future(phase.fault(run.system))
        try:
            async with asyncio.TaskGroup() as probing:
                until_s = time.monotonic() + plan.seconds
                while time.monotonic() < until_s:
                    probing.create_task(probe())
                    await asyncio.sleep(1 / plan.probes_per_s)
                    if fault.done():
                        # A fault that failed ends the run.
                        fault.result()
        finally:
            fault.cancel()
            await asyncio.gather(fault, return_exceptions=True)
    result.probes[phase.name] = probes
    result.load[phase.name] = dict(summary.total().failures)


async def _compared(
    run: _Run, before: Mapping[str, Any] | None, when: str, result: Freshness
) -> dict[str, dict[str, Any]]:
    """Compare what the replicas know of users with each other, and with before; return it.

    A replica may be a moment behind, so what differs is asked for again until it is equal, or the time is over.
    """
    users = [*before] if before is not None else [*run.stopwatch.users, *run.population.users][:_COMPARED_USERS]
    found: dict[str, dict[str, Any]] = {}
    deadline_s = time.monotonic() + _SETTLE_S
    for user_id in users:
        while True:
            answers = {name: await run.stopwatch.known(port, user_id) for name, port in run.replicas().items()}
            first = next(iter(answers.values()))
            same = first is not None and all(_state(answer) == _state(first) for answer in answers.values())
            if same and (before is None or _is_as_before(_state(first), before[user_id])):
                break
            if time.monotonic() > deadline_s:
                states = {name: _brief(answer) for name, answer in answers.items()}
                states |= {} if before is None else {"before": _brief(before[user_id])}
                result.unequal.append(f"{when}: the state of {user_id} differs: {states}")
                break
            await asyncio.sleep(0.1)
        found[user_id] = _state(first)
    return found


def _state(known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the part of an answer that depends on the model and the state alone."""
    names = ("model", "events", "state_watermark", "interactions", "items")
    return {} if known is None else {name: known[name] for name in names}


def _is_as_before(state: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a state is that of before; the list of an erased user has become another one."""
    return all(state.get(name) == before[name] for name in before if before["events"] or name != "items")


def _brief(known: Mapping[str, Any] | None) -> str:
    """Return an answer in few words."""
    if known is None:
        return "no answer"
    return f"{len(known['events'])} events, {len(known['interactions'])} interactions, {known['state_watermark']}"


def _summary(delays_s: Sequence[float]) -> dict[str, float]:
    quantiles = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(_quantile(delays_s, share) * _MS_PER_S, 1) for name, share in quantiles.items()}


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else 0.0


def _rng(plan: FreshnessPlan, use: str) -> random.Random:
    return random.Random(f"{plan.seed}/{use}")  # noqa: S311  # chance that can be repeated, not secrets
