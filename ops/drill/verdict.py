"""The result of a drill as values: a row for each fault, and whether every promise was kept; pure.

Invariant: a row is PASS only if its fault was injected and no promise was broken; a fault that was not injected is
SKIPPED, with the reason. The drill is ok only if no row is a BREACH and every archive and audit receipt is right.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ops.drill.faults.fault import Fault
from ops.drill.faults.promise import Figures, assess
from ops.drill.stage import QUIET, DrillRound, Stage
from ops.load.load_report import LAG_LIMIT_MS

PASS, BREACH, SKIPPED = "PASS", "BREACH", "SKIPPED"


@dataclass(frozen=True)
class VerdictRow:
    """One row of the table.

    Attributes:
        name: The name of the fault.
        row: The row of docs/promises.md.
        title: The fault in words.
        stage: The kind of system.
        promise: The promise in words.
        verdict: PASS, BREACH or SKIPPED.
        why: Breaches, or the reason for skipping, one clause each.
        notes: Promises that could not be assessed, with the reason.
        figures: None if it was skipped.
    """

    name: str
    row: str
    title: str
    stage: str
    promise: str
    verdict: str
    why: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Figures | None = None


@dataclass(frozen=True)
class DrillVerdict:
    """The whole drill.

    Attributes:
        rows: One for each fault, in order.
        breaches: Breaches beside the rows, of an archive or an audit receipt.
        receipts: The findings of the oracle and the audit in each archive, one clause each.
        notes: Limits of the drill itself.
    """

    rows: tuple[VerdictRow, ...]
    breaches: tuple[str, ...]
    receipts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return not self.breaches and all(row.verdict != BREACH for row in self.rows)


def conclude(stages: Sequence[Stage], cores: int, skipped: Sequence[tuple[Fault, str]] = ()) -> DrillVerdict:
    """Assess every round; `skipped` are faults for which no system was drilled, with the reason."""
    rows: list[VerdictRow] = []
    breaches: list[str] = []
    notes: list[str] = []
    for stage in stages:
        quiet_p99_ms = next((r.figures.list_p99_ms for r in stage.rounds if r.fault is None), None)
        rows += [_row(drill_round, stage.title, quiet_p99_ms, cores) for drill_round in stage.rounds]
        rows += [_skipped(fault, stage.title, why) for fault, why in stage.skipped]
        breaches += [f"{stage.title}: {sentence}" for sentence in _breaches_of(stage)]
        if stage.late_p99_s is not None and stage.late_p99_s * 1e3 > LAG_LIMIT_MS:
            notes.append(
                f"{stage.title}: the drill itself was late with 1 % of its requests, by more than "
                f"{stage.late_p99_s * 1e3:.0f} ms; latencies contain that"
            )
    rows += [_skipped(fault, fault.kind.value, why) for fault, why in skipped]
    receipts = tuple(f"{stage.title}: {receipt(stage)}" for stage in stages)
    return DrillVerdict(tuple(rows), tuple(breaches), receipts, tuple(notes))


def _row(drill_round: DrillRound, stage: str, quiet_p99_ms: float | None, cores: int) -> VerdictRow:
    assessment = assess(drill_round.promise, drill_round.figures, quiet_p99_ms, cores)
    fault = drill_round.fault
    row = VerdictRow(
        name=drill_round.name,
        row="" if fault is None else fault.row,
        title="no fault" if fault is None else fault.title,
        stage=stage,
        promise=drill_round.promise.text,
        verdict=BREACH if assessment.breaches else PASS,
        why=assessment.breaches,
        notes=assessment.notes,
        figures=drill_round.figures,
    )
    if fault is not None and not assessment.breaches and drill_round.figures.injections < 1:
        return replace(row, verdict=SKIPPED, why=("its targets did not run at that moment",))
    return row


def _skipped(fault: Fault, stage: str, why: str) -> VerdictRow:
    return VerdictRow(fault.name, fault.row, fault.title, stage, fault.promise.text, SKIPPED, (why,))


def _breaches_of(stage: Stage) -> list[str]:
    """Return the breaches of a stage as a whole; lost events are also in the row of their time."""
    found = stage.findings
    breaches = [
        f"of {found.expected} acknowledged events and answered lists {len(times_s)} are {what} in the archive"
        for times_s, what in (
            (found.lost, "not"),
            (found.duplicated, "more than once"),
            (found.altered, "with other content"),
        )
        if times_s
    ]
    breaches += found.examples
    breaches += [f"telemetry was found in the log {name}" for name in stage.leaks]
    breaches += stage.live_state
    if stage.receipt is not None and not stage.receipt.ok:
        sentences = stage.receipt.breaches or ("not everything is accounted for",)
        breaches += [f"the audit reports: {sentence}" for sentence in sentences]
    return breaches


def receipt(stage: Stage) -> str:
    """Return the findings of the oracle and the audit in a stage's archive, as one clause."""
    found, audit = stage.findings, stage.receipt
    sentence = (
        f"of {found.expected} acknowledged events and answered lists {len(found.lost)} were lost, "
        f"{len(found.duplicated)} duplicated, {len(found.altered)} altered"
    )
    if audit is not None and audit.accepted is not None:
        sentence += (
            f"; the audit counts {audit.accepted} accepted, {audit.archived} archived, {audit.missing} missing, "
            f"{audit.duplicated} duplicated"
        )
    return sentence


def as_json(verdict: DrillVerdict, stages: Sequence[Stage], about: dict[str, Any]) -> dict[str, Any]:
    """Return the object that `chaos --json` prints; null where a time was not measured, `about` with seed and rates."""
    return {
        **about,
        "ok": verdict.ok,
        "faults": [_row_json(row) for row in verdict.rows],
        "stages": [
            {
                "name": stage.title,
                "expected": stage.findings.expected,
                "lost": len(stage.findings.lost),
                "duplicated": len(stage.findings.duplicated),
                "altered": len(stage.findings.altered),
                "examples": stage.findings.examples,
                "audit": None if stage.receipt is None else asdict(stage.receipt),
            }
            for stage in stages
        ],
        "breaches": list(verdict.breaches),
        "notes": list(verdict.notes),
    }


def _row_json(row: VerdictRow) -> dict[str, Any]:
    figures = None if row.figures is None else {**asdict(row.figures), "failed": row.figures.failed}
    return {**asdict(row), "figures": figures}


HEADINGS = ("times", "sent", "failed", "raw", "refused", "lost", "duplicated", "p50 ms", "p99 ms", "max ms", "ready s",
            "caught up s", "verdict")  # fmt: skip


def cells(row: VerdictRow) -> tuple[str, ...]:
    """Return a row's figures as texts, under `HEADINGS`."""
    figures = row.figures
    if figures is None:
        return (*[""] * (len(HEADINGS) - 1), row.verdict)
    counts = (
        figures.requests, figures.failed, figures.raw_failed, figures.refused, figures.lost, figures.duplicated
    )  # fmt: skip
    times = (figures.p50_ms, figures.p99_ms, figures.max_ms, figures.ready_s, figures.caught_up_s)
    injections = "" if row.name == QUIET else str(figures.injections)
    return (injections, *map(str, counts), *("-" if time is None else f"{time:.1f}" for time in times), row.verdict)
