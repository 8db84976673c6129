"""One installation under drill: a quiet round, a round for each fault, and then the archive is held to the ledger.

The invariant: the load never stops between the first round and the last, a fault is undone before the next one begins,
and every request and every debt belongs to exactly one round, by its time.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ops.drill.audit_call import Audit, audit
from ops.drill.drill_load import Load, Sample
from ops.drill.faults.fault import Fault, Strike
from ops.drill.faults.promise import Figures, Promise
from ops.drill.figures import answers
from ops.drill.ledger import Findings, Ledger
from ops.drill.needs import RunningParts
from ops.drill.schedule import strikes
from ops.drill.system import System
from ops.drill.system_watch import Measure, Seen, Watch, caught_up_s, slowest_return_s
from ops.drill.waiting import until
from ops.load.population import Target
from service.errors import RunError
from telemetry.archive.archive_reader import read
from telemetry.errors import ArchiveError

QUIET = "quiet"
_QUIET_PROMISE = Promise(text="no request fails")
_RECOVERY_LIMIT_S = 60.0
_ARCHIVE_LIMIT_S = 60.0
_READ_EVERY_S = 1.0
# Ids that are looked for in the logs.
_LOOKED_FOR = 100
# The archive's word comes back once a second and is asked for once a second, so what two seconds bring always waits.
_WAITING_S = 3.0


@dataclass(frozen=True)
class Plan:
    """What is asked of every stage.

    Attributes:
        rate_rps: Requests per second.
        duration_s: Of a round.
        quiet_s: Of the round without a fault.
        every_s: From one blow to the next, None for each fault's own pace.
        seed: Of the schedule and the load.
    """

    rate_rps: float
    duration_s: float
    quiet_s: float
    every_s: float | None
    seed: int


@dataclass(frozen=True)
class Band:
    """One strike as it happened, in seconds on the stage's clock."""

    from_s: float
    to_s: float
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """What was done and measured for one fault; `fault` is None in the quiet round."""

    name: str
    fault: Fault | None
    promise: Promise
    from_s: float
    to_s: float
    bands: tuple[Band, ...]
    figures: Figures


@dataclass
class Stage:
    """One installation's drill.

    Attributes:
        title: How the installation was run.
        parts: What ran in it.
        rounds: In order.
        skipped: Faults that could not be done, and why.
        samples: Every request.
        seen: Every change of a part's state.
        measures: Events that waited, and the machine's load.
        findings: The ledger held against the archive.
        audit: What `recollect audit` said.
        leaks: Log files in which telemetry was found.
        late_p99_s: The generator's own lateness.
    """

    title: str
    parts: RunningParts
    rounds: list[Round] = field(default_factory=list)
    skipped: list[tuple[Fault, str]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    audit: Audit | None = None
    leaks: tuple[str, ...] = ()
    late_p99_s: float | None = None


async def run(
    title: str,
    system: System,
    target: Target,
    faults: Sequence[Fault],
    plan: Plan,
    ledger: Ledger,
    since: date,
    say: Callable[[str], None],
) -> Stage:
    """Drill one installation.

    Args:
        title: How it is run.
        system: The installation.
        target: Where it answers.
        faults: What to do to it, in order.
        plan: Rates and times.
        ledger: An empty one.
        since: The first UTC date of the archive that can hold what this drill is owed.
        say: Told what is done.

    Raises:
        RunError: Nothing answers, or the archive cannot be read.
    """
    start_s = time.monotonic()
    stage = Stage(title, system.parts())
    drafts: list[_Draft] = []
    watch = Watch(system, start_s)
    async with watch, Load(target, system.home / "models", plan.rate_rps, plan.seed, start_s, ledger) as load:
        say(f"{QUIET}: {plan.quiet_s:g} s without a fault")
        drafts.append(await _quiet(watch, plan.quiet_s))
        limit = int(_WAITING_S * len(ledger) / watch.now_s())
        for fault in faults:
            lacking = [why for need in fault.needs if (why := system.lacks(need)) is not None]
            blows = strikes(fault, stage.parts, plan.duration_s, plan.every_s, plan.seed)
            if lacking or not blows:
                stage.skipped.append((fault, "; ".join(lacking) or "there is nothing to do it to"))
                say(f"{fault.name}: skipped, {stage.skipped[-1][1]}")
                continue
            say(f"{fault.name}: {fault.title}, {len(blows)} times in {plan.duration_s:g} s")
            drafts.append(await _Drafting(system, watch, limit).run(fault, blows, plan.duration_s))
    stage.samples, stage.seen, stage.measures = load.samples, watch.seen, watch.measures
    stage.late_p99_s = load.lag.percentile_s(0.99)
    say(f"looking for {len(ledger)} acknowledged events and answered lists in the archive")
    stage.findings = await _settle(ledger, system.archive, since)
    stage.leaks = await asyncio.to_thread(_leaks, system.logs, ledger.some_ids(_LOOKED_FOR))
    stage.audit = await audit(system)
    stage.rounds = [_finish(draft, stage, system, start_s, limit) for draft in drafts]
    return stage


@dataclass
class _Draft:
    """A round before its figures."""

    name: str
    fault: Fault | None
    promise: Promise
    from_s: float
    to_s: float = 0.0
    bands: list[Band] = field(default_factory=list)
    missed: int = 0
    complaints: list[str] = field(default_factory=list)


async def _quiet(watch: Watch, quiet_s: float) -> _Draft:
    draft = _Draft(QUIET, None, _QUIET_PROMISE, watch.now_s())
    await asyncio.sleep(quiet_s)
    draft.to_s = watch.now_s()
    return draft


class _Drafting:
    """Does one fault after the other to a system.

    Args:
        system: The installation.
        watch: Of it.
        limit: Events that may wait when a round ends.
    """

    def __init__(self, system: System, watch: Watch, limit: int) -> None:
        self._system = system
        self._watch = watch
        self._limit = limit

    async def run(self, fault: Fault, blows: Sequence[Strike], duration_s: float) -> _Draft:
        """Strike as scheduled, undo, and wait until the system has recovered."""
        watch, system = self._watch, self._system
        draft = _Draft(fault.name, fault, fault.promise, watch.now_s())
        system.complaints.clear()
        system.missed = 0
        for strike in blows:
            await asyncio.sleep(draft.from_s + strike.at_s - watch.now_s())
            from_s = watch.now_s()
            try:
                async with fault.do(system, strike):
                    await asyncio.sleep(strike.hold_s)
            except RunError as error:
                system.complain(f"the fault could not be done: {error}")
            draft.bands.append(Band(from_s, watch.now_s(), strike.targets))
        await asyncio.sleep(draft.from_s + duration_s - watch.now_s())
        await self._recover(draft)
        draft.to_s = watch.now_s()
        draft.complaints = list(system.complaints)
        draft.missed = system.missed
        return draft

    async def _recover(self, draft: _Draft) -> None:
        ended_s = draft.bands[-1].to_s
        if not await until(lambda: self._recovered(ended_s), _RECOVERY_LIMIT_S):
            away = [row.name for row in self._system.rows() if row.state != "ready"]
            what = f"not ready: {', '.join(away)}" if away else "events still wait"
            self._system.complain(f"{_RECOVERY_LIMIT_S:g} s after the fault the system had not recovered ({what})")

    def _recovered(self, ended_s: float) -> bool:
        last = self._watch.measures[-1] if self._watch.measures else None
        if last is None or last.at_s < ended_s or not self._system.ready():
            return False
        return last.waiting is not None and last.waiting <= self._limit


def _finish(draft: _Draft, stage: Stage, system: System, start_s: float, limit: int) -> Round:
    """Give a round its figures, now that everything has been looked at."""
    within = _Within(draft.from_s, draft.to_s)
    found = answers((sample for sample in stage.samples if within(sample.at_s)), draft.promise)
    ended_s = draft.bands[-1].to_s if draft.bands else draft.from_s
    deaths = [death for death in system.deaths if within(death.at_s - start_s)]
    after_refusal_s = 0.0 if found.last_refused_s is None else max(0.0, found.last_refused_s - ended_s)
    figures = Figures(
        strikes=len(draft.bands) - draft.missed,
        held_s=max((band.to_s - band.from_s for band in draft.bands), default=0.0),
        requests=found.requests,
        failures=found.failures,
        raw_failed=found.raw_failed,
        refused=found.refused,
        lost=within.count(stage.findings.lost),
        doubled=within.count(stage.findings.doubled),
        altered=within.count(stage.findings.altered),
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        max_ms=found.max_ms,
        list_p99_ms=found.list_p99_ms,
        list_max_ms=found.list_max_ms,
        ready_s=slowest_return_s(deaths, stage.seen, start_s),
        caught_up_s=caught_up_s(stage.measures, ended_s, limit) if draft.bands else None,
        taken_again_s=after_refusal_s,
        load=max((m.load for m in stage.measures if within(m.at_s)), default=0.0),
        complaints=tuple(draft.complaints),
    )
    return Round(draft.name, draft.fault, draft.promise, draft.from_s, draft.to_s, tuple(draft.bands), figures)


@dataclass(frozen=True)
class _Within:
    """A span of time, its end excluded."""

    from_s: float
    to_s: float

    def __call__(self, at_s: float) -> bool:
        return self.from_s <= at_s < self.to_s

    def count(self, times_s: Sequence[float]) -> int:
        return sum(1 for at_s in times_s if self(at_s))


async def _settle(ledger: Ledger, archive: Path, since: date) -> Findings:
    """Look into the archive until nothing is missing, for a while."""
    findings: Findings | None = None

    async def complete() -> bool:
        nonlocal findings
        # A file may be replaced under a reader, by an erase or by compaction; the next look finds the new one.
        with contextlib.suppress(ArchiveError):
            findings = await asyncio.to_thread(lambda: ledger.compare(read(archive, first=since)))
        return findings is not None and not findings.lost

    await until(complete, _ARCHIVE_LIMIT_S, _READ_EVERY_S)
    if findings is None:
        raise RunError(f"The archive in {archive} cannot be read.")
    return findings


def _leaks(logs: Path, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the log files that hold one of these ids: telemetry has no business there."""
    wanted = re.compile(b"|".join(re.escape(event_id.encode()) for event_id in ids))
    found = []
    for path in sorted(logs.rglob("*")) if ids else ():
        with contextlib.suppress(OSError), path.open("rb") as lines:
            if any(wanted.search(line) for line in lines):
                found.append(path.name)
    return tuple(found)
