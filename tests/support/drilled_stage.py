"""A drilled installation of three rounds, with samples of every kind."""

from typing import Any

from ops.drill.drill_load import RequestSample
from ops.drill.faults.fault_catalogue import select
from ops.drill.faults.promise import Figures, Promise
from ops.drill.oracle import Findings
from ops.drill.stage import QUIET, CompletedInjection, DrillRound, Stage
from ops.drill.system.needs import RunningParts
from ops.drill.system.recollect_commands import AuditSummary
from ops.drill.system.system_watch import BacklogSample, StateChange

_PARTS = RunningParts(("replica-0",), ("nginx-0",), redis=True, consumer=True)


def _figures(**changes: Any) -> Figures:
    kept = {"injections": 2, "requests": 1000, "p50_ms": 2.0, "p99_ms": 9.0, "max_ms": 20.0, "list_p99_ms": 9.0}
    return Figures(**{**kept, "caught_up_s": 0.5, "ready_s": 0.7, **changes})


def drilled_round(name: str, from_s: float, **changes: Any) -> DrillRound:
    (fault,) = select(name)
    injections = (
        CompletedInjection(from_s + 1, from_s + 1, ("nginx-0/worker",)),
        CompletedInjection(from_s + 3, from_s + 6, ("redis",)),
    )
    return DrillRound(name, fault, fault.promise, from_s, from_s + 10, injections, _figures(**changes))


def drilled_stage(**changes: Any) -> Stage:
    quiet = DrillRound(QUIET, None, Promise(text="no request fails"), 0, 10, (), _figures(injections=0))
    stage = Stage(
        title="default settings <",
        parts=_PARTS,
        rounds=[quiet, drilled_round("kill-any", 10), drilled_round("redis-frozen", 20)],
        samples=[
            RequestSample(n / 10, 0.002 + n / 1e5, "recommend", 1 + (n % 50 == 0), None, "reset" if n == 42 else None)
            for n in range(300)
        ],
        changes=[
            StateChange(0, "redis", "ready", 1, 0),
            StateChange(11, "redis", "starting", 2, 1),
            StateChange(11.4, "redis", "ready", 2, 1),
            StateChange(20.0, "redis", "ready", 3, 2),
        ],
        backlog=[BacklogSample(n / 2, None if n == 20 else n, 1.0) for n in range(60)],
        findings=Findings(expected=1234),
        receipt=AuditSummary(ok=True, accepted=1300, archived=1300, missing=0, duplicated=0),
        late_p99_s=0.001,
    )
    for name, value in changes.items():
        setattr(stage, name, value)
    return stage
