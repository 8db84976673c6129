"""A stage: one drilled system, with a quiet round, a round for each fault, and a check of its archive.

Invariant: the load runs from the first round to the last without a pause, a fault is undone before the next one begins,
and every request and every acknowledgement belongs to exactly one round, by its time.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from ops.drill.drill_load import DrillLoad, RequestSample
from ops.drill.faults.fault import Fault, Injection
from ops.drill.faults.promise import Figures, Promise
from ops.drill.figures import answer_figures
from ops.drill.oracle import Findings, Oracle
from ops.drill.schedule import schedule_injections
from ops.drill.system.drilled_system import DrilledSystem
from ops.drill.system.needs import RunningParts
from ops.drill.system.recollect_commands import AuditSummary, run_audit
from ops.drill.system.system_watch import BacklogSample, StateChange, SystemWatch, catch_up_s, slowest_return_s
from ops.drill.system.waiting import poll_until
from ops.load.population import Target
from service.errors import RunError
from telemetry.archive.archive_reader import read
from telemetry.errors import ArchiveError, StateError
from telemetry.live.state_check import count_wrong_users

QUIET = "quiet"
_QUIET_PROMISE = Promise(text="no request fails")
_RECOVERY_LIMIT_S = 60.0
_ARCHIVE_LIMIT_S = 60.0
_LIVE_STATE_LIMIT_S = 20.0
_READ_EVERY_S = 1.0
# Ids that are searched for in the application logs.
_SEARCHED_IDS = 100
# Confirmations and queries each happen once a second, so the events of two seconds always wait.
_NORMAL_BACKLOG_S = 3.0


@dataclass(frozen=True)
class DrillSpec:
    """The rates and times of every stage.

    Attributes:
        rate_rps: Requests per second.
        duration_s: Of a round.
        quiet_s: Of the round without a fault.
        every_s: From one instant injection to the next, None for each fault's own interval.
        seed: Of the schedule and the load.
    """

    rate_rps: float
    duration_s: float
    quiet_s: float
    every_s: float | None
    seed: int


@dataclass(frozen=True)
class CompletedInjection:
    """One completed injection, in seconds on the stage's clock."""

    from_s: float
    to_s: float
    targets: tuple[str, ...]


@dataclass(frozen=True)
class DrillRound:
    """One round and its figures; `fault` is None in the quiet round."""

    name: str
    fault: Fault | None
    promise: Promise
    from_s: float
    to_s: float
    injections: tuple[CompletedInjection, ...]
    figures: Figures


@dataclass
class Stage:
    """The drill of one system.

    Attributes:
        title: The kind of system.
        parts: The parts that ran in it.
        rounds: In order.
        skipped: Faults that could not be injected, and why.
        samples: Every request.
        changes: Every change of a part's state.
        backlog: Events that waited, and the machine's load.
        findings: Of the oracle.
        receipt: Of `recollect audit`.
        leaks: Application logs in which telemetry was found.
        live_state: What is wrong with the live state, one clause each.
        late_p99_s: The load generator's own lateness.
    """

    title: str
    parts: RunningParts
    rounds: list[DrillRound] = field(default_factory=list)
    skipped: list[tuple[Fault, str]] = field(default_factory=list)
    samples: list[RequestSample] = field(default_factory=list)
    changes: list[StateChange] = field(default_factory=list)
    backlog: list[BacklogSample] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    receipt: AuditSummary | None = None
    leaks: tuple[str, ...] = ()
    live_state: tuple[str, ...] = ()
    late_p99_s: float | None = None


async def run_stage(
    title: str,
    system: DrilledSystem,
    target: Target,
    faults: Sequence[Fault],
    spec: DrillSpec,
    oracle: Oracle,
    since: date,
    notify: Callable[[str], None],
) -> Stage:
    """Drill one system with some faults, in order.

    The oracle must be empty. `since` is the first UTC date of the archive that can hold events of this drill.

    Raises:
        RunError: The system does not answer, or its archive cannot be read.
    """
    start_s = time.monotonic()
    stage = Stage(title, system.parts())
    observed_rounds: list[_ObservedRound] = []
    watch = SystemWatch(system, start_s)
    async with watch, DrillLoad(target, system.home / "models", spec.rate_rps, spec.seed, start_s, oracle) as load:
        notify(f"{QUIET}: {spec.quiet_s:g} s without a fault.")
        quiet = _ObservedRound(QUIET, None, _QUIET_PROMISE, watch.now_s())
        await asyncio.sleep(spec.quiet_s)
        quiet.to_s = watch.now_s()
        observed_rounds.append(quiet)
        backlog_limit = int(_NORMAL_BACKLOG_S * len(oracle) / watch.now_s())
        for fault in faults:
            lacking = [why for need in fault.needs if (why := system.unmet_reason(need)) is not None]
            scheduled = schedule_injections(fault, stage.parts, spec.duration_s, spec.every_s, spec.seed)
            if lacking or not scheduled:
                stage.skipped.append((fault, "; ".join(lacking) or "there is no target"))
                notify(f"{fault.name}: skipped, {stage.skipped[-1][1]}.")
                continue
            notify(f"{fault.name}: {fault.title}, {len(scheduled)} times in {spec.duration_s:g} s.")
            observed_rounds.append(await _run_round(system, watch, fault, scheduled, spec.duration_s, backlog_limit))
    stage.samples, stage.changes, stage.backlog = load.samples, watch.changes, watch.backlog
    stage.late_p99_s = load.lag.percentile_s(0.99)
    notify(f"Searching the archive for {len(oracle)} acknowledged events and answered lists.")
    stage.findings = await _check_archive(oracle, system.archive, since)
    stage.leaks = await asyncio.to_thread(_logs_containing, system.logs, oracle.sample_ids(_SEARCHED_IDS))
    stage.live_state = await _check_live_state(system.archive, system.home / "state")
    stage.receipt = await run_audit(system.environ)
    stage.rounds = [_round_of(observed, stage, system, start_s, backlog_limit) for observed in observed_rounds]
    return stage


@dataclass
class _ObservedRound:
    """A round before its figures are known."""

    name: str
    fault: Fault | None
    promise: Promise
    from_s: float
    to_s: float = 0.0
    injections: list[CompletedInjection] = field(default_factory=list)
    missed_injections: int = 0
    problems: list[str] = field(default_factory=list)

    def contains(self, at_s: float) -> bool:
        return self.from_s <= at_s < self.to_s

    def count(self, times_s: Sequence[float]) -> int:
        return sum(map(self.contains, times_s))


async def _run_round(
    system: DrilledSystem,
    watch: SystemWatch,
    fault: Fault,
    scheduled: Sequence[Injection],
    duration_s: float,
    backlog_limit: int,
) -> _ObservedRound:
    """Inject the fault as scheduled, undo it, and wait until the system has recovered."""
    observed = _ObservedRound(fault.name, fault, fault.promise, watch.now_s())
    system.problems.clear()
    system.missed_injections = 0
    for injection in scheduled:
        await asyncio.sleep(observed.from_s + injection.at_s - watch.now_s())
        from_s = watch.now_s()
        try:
            async with fault.inject(system, injection):
                await asyncio.sleep(injection.hold_s)
        except RunError as error:
            system.problems.append(f"the fault could not be injected: {str(error).rstrip('.')}")
        observed.injections.append(CompletedInjection(from_s, watch.now_s(), injection.targets))
    await asyncio.sleep(observed.from_s + duration_s - watch.now_s())
    await _wait_for_recovery(system, watch, observed.injections[-1].to_s, backlog_limit)
    observed.to_s = watch.now_s()
    observed.problems = list(system.problems)
    observed.missed_injections = system.missed_injections
    return observed


async def _wait_for_recovery(system: DrilledSystem, watch: SystemWatch, ended_s: float, backlog_limit: int) -> None:
    def recovered() -> bool:
        return system.ready() and catch_up_s(watch.backlog[-1:], ended_s, backlog_limit) is not None

    if not await poll_until(recovered, _RECOVERY_LIMIT_S):
        not_ready = [row.name for row in system.rows() if row.state != "ready"]
        reason = f"not ready: {', '.join(not_ready)}" if not_ready else "events still wait"
        system.problems.append(f"{_RECOVERY_LIMIT_S:g} s after the fault the system had not recovered ({reason})")


def _round_of(
    observed: _ObservedRound, stage: Stage, system: DrilledSystem, start_s: float, backlog_limit: int
) -> DrillRound:
    ended_s = observed.injections[-1].to_s if observed.injections else observed.from_s
    samples = (sample for sample in stage.samples if observed.contains(sample.at_s))
    kills = [kill for kill in system.kills if observed.contains(kill.at_s - start_s)]
    figures = replace(
        answer_figures(samples, observed.promise, ended_s),
        injections=len(observed.injections) - observed.missed_injections,
        held_s=max((injection.to_s - injection.from_s for injection in observed.injections), default=0.0),
        lost=observed.count(stage.findings.lost),
        duplicated=observed.count(stage.findings.duplicated),
        altered=observed.count(stage.findings.altered),
        ready_s=slowest_return_s(kills, stage.changes, start_s),
        caught_up_s=catch_up_s(stage.backlog, ended_s, backlog_limit) if observed.injections else None,
        load=max((sample.load for sample in stage.backlog if observed.contains(sample.at_s)), default=0.0),
        problems=tuple(observed.problems),
    )
    return DrillRound(
        observed.name,
        observed.fault,
        observed.promise,
        observed.from_s,
        observed.to_s,
        tuple(observed.injections),
        figures,
    )


async def _check_archive(oracle: Oracle, archive: Path, since: date) -> Findings:
    """Read the archive until nothing is missing, or for a minute."""
    findings: Findings | None = None

    async def complete() -> bool:
        nonlocal findings
        # An erase or a compaction may replace a file under the reader; the next read finds the new one.
        with contextlib.suppress(ArchiveError):
            findings = await asyncio.to_thread(lambda: oracle.check(read(archive, first=since)))
        return findings is not None and not findings.lost

    await poll_until(complete, _ARCHIVE_LIMIT_S, _READ_EVERY_S)
    if findings is None:
        raise RunError(f"The archive in {archive} cannot be read.")
    return findings


async def _check_live_state(archive: Path, directory: Path) -> tuple[str, ...]:
    """Compare the state snapshot with the archive until they agree, or for a while."""
    problem = ""

    async def right() -> bool:
        nonlocal problem
        # An erase, a compaction or a new snapshot may replace a file under the reader.
        try:
            wrong = await asyncio.to_thread(count_wrong_users, archive, directory)
        except (ArchiveError, StateError) as error:
            problem = str(error).removesuffix(".")
        else:
            problem = f"the live state of {wrong} users is not that of the archive" if wrong else ""
        return not problem

    await poll_until(right, _LIVE_STATE_LIMIT_S, _READ_EVERY_S)
    return (problem,) if problem else ()


def _logs_containing(logs: Path, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the application logs that contain one of these ids: telemetry must not be there."""
    pattern = re.compile(b"|".join(re.escape(event_id.encode()) for event_id in ids))
    found = []
    for path in sorted(logs.rglob("*")) if ids else ():
        with contextlib.suppress(OSError), path.open("rb") as lines:
            if any(pattern.search(line) for line in lines):
                found.append(path.name)
    return tuple(found)
