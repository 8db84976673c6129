"""What a drill found, as values: a row for each fault, and whether everything held; pure.

The invariant: a row is PASS only if its fault was done and nothing promised was broken; what was not done is SKIPPED,
with the reason. The drill held only if no row is a BREACH and no archive, and no receipt, is wrong.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ops.drill.faults.fault import Fault
from ops.drill.faults.promise import Figures, judge
from ops.drill.stage import QUIET, Round, Stage
from ops.load.load_report import LAG_LIMIT_MS

PASS, BREACH, SKIPPED = "PASS", "BREACH", "SKIPPED"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Of the fault.
        row: Row of docs/promises.md, such as "R7".
        title: What was done.
        stage: How the installation was run.
        promise: In words.
        verdict: PASS, BREACH or SKIPPED.
        why: Breaches, or the reason for skipping, one sentence each.
        notes: What could not be judged.
        figures: What was measured; None if it was skipped.
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
class Verdict:
    """The whole drill.

    Attributes:
        rows: One for each fault, in order.
        breaches: What is wrong beside the rows: an archive, a receipt.
        receipts: What the ledger and the audit found in each archive, one sentence each.
        notes: About the drill itself.
    """

    rows: tuple[Row, ...]
    breaches: tuple[str, ...]
    receipts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing promised was broken."""
        return not self.breaches and all(row.verdict != BREACH for row in self.rows)


def conclude(stages: Sequence[Stage], cores: int, skipped: Sequence[tuple[Fault, str]] = ()) -> Verdict:
    """Judge everything.

    Args:
        stages: The installations drilled.
        cores: Of the machine.
        skipped: Faults for which no installation was drilled, and why.
    """
    rows: list[Row] = []
    breaches: list[str] = []
    notes: list[str] = []
    for stage in stages:
        quiet_p99_ms = next((r.figures.list_p99_ms for r in stage.rounds if r.fault is None), None)
        rows += [_row(r, stage.title, quiet_p99_ms, cores) for r in stage.rounds]
        rows += [_skipped(fault, stage.title, why) for fault, why in stage.skipped]
        breaches += [f"{stage.title}: {sentence}" for sentence in _wrong_with(stage)]
        if stage.late_p99_s is not None and stage.late_p99_s * 1e3 > LAG_LIMIT_MS:
            notes.append(
                f"{stage.title}: the drill itself was late with 1 % of its requests, by more than "
                f"{stage.late_p99_s * 1e3:.0f} ms; latencies contain that"
            )
    rows += [_skipped(fault, fault.setting.value, why) for fault, why in skipped]
    receipts = tuple(f"{stage.title}: {receipt(stage)}" for stage in stages)
    return Verdict(tuple(rows), tuple(breaches), receipts, tuple(notes))


def _row(done: Round, stage: str, quiet_p99_ms: float | None, cores: int) -> Row:
    judged = judge(done.promise, done.figures, quiet_p99_ms, cores)
    fault = done.fault
    row = Row(
        name=done.name,
        row="" if fault is None else fault.row,
        title="no fault" if fault is None else fault.title,
        stage=stage,
        promise=done.promise.text,
        verdict=BREACH if judged.breaches else PASS,
        why=judged.breaches,
        notes=judged.notes,
        figures=done.figures,
    )
    if fault is not None and not judged.breaches and done.figures.strikes < 1:
        return replace(row, verdict=SKIPPED, why=("what it was to strike did not run at that moment",))
    return row


def _skipped(fault: Fault, stage: str, why: str) -> Row:
    return Row(fault.name, fault.row, fault.title, stage, fault.promise.text, SKIPPED, (why,))


def _wrong_with(stage: Stage) -> list[str]:
    """Return what is wrong with a stage as a whole; lost events are also in the row of the time they were taken."""
    found = stage.findings
    wrong = [
        f"of {found.owed} acknowledged events and answered lists {len(times_s)} are {what} in the archive"
        for times_s, what in (
            (found.lost, "not"),
            (found.doubled, "more than once"),
            (found.altered, "with other content"),
        )
        if times_s
    ]
    wrong += found.examples
    wrong += [f"telemetry was found in the log {name}" for name in stage.leaks]
    if stage.audit is not None and not stage.audit.ok:
        wrong += [f"the audit says: {sentence}" for sentence in stage.audit.breaches or ("not everything is there",)]
    return wrong


def receipt(stage: Stage) -> str:
    """Return in a sentence what the ledger and the audit found in a stage's archive."""
    found, audit = stage.findings, stage.audit
    sentence = (
        f"of {found.owed} acknowledged events and answered lists {len(found.lost)} were lost, {len(found.doubled)} "
        f"doubled, {len(found.altered)} altered"
    )
    if audit is not None and audit.accepted is not None:
        sentence += (
            f"; the audit counts {audit.accepted} accepted, {audit.archived} archived, {audit.missing} missing, "
            f"{audit.duplicated} duplicated"
        )
    return sentence


def as_json(verdict: Verdict, stages: Sequence[Stage], about: dict[str, Any]) -> dict[str, Any]:
    """Return the object that `chaos --json` prints; times in the units of their names, null where nothing was taken.

    Args:
        verdict: Of `conclude`.
        stages: The installations drilled.
        about: Seed, rate and the like.
    """
    return {
        **about,
        "ok": verdict.ok,
        "faults": [_row_json(row) for row in verdict.rows],
        "stages": [
            {
                "name": stage.title,
                "owed": stage.findings.owed,
                "lost": len(stage.findings.lost),
                "doubled": len(stage.findings.doubled),
                "altered": len(stage.findings.altered),
                "examples": stage.findings.examples,
                "audit": None if stage.audit is None else asdict(stage.audit),
            }
            for stage in stages
        ],
        "breaches": list(verdict.breaches),
        "notes": list(verdict.notes),
    }


def _row_json(row: Row) -> dict[str, Any]:
    figures = None if row.figures is None else {**asdict(row.figures), "failed": row.figures.failed}
    return {**asdict(row), "figures": figures}


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's figures as texts, under `HEADINGS`."""
    figures = row.figures
    if figures is None:
        return (*[""] * (len(HEADINGS) - 1), row.verdict)
    return (
        "" if row.name == QUIET else str(figures.strikes),
        str(figures.requests),
        str(figures.failed),
        str(figures.raw_failed),
        str(figures.refused),
        str(figures.lost),
        str(figures.doubled),
        number(figures.p50_ms),
        number(figures.p99_ms),
        number(figures.max_ms),
        number(figures.ready_s),
        number(figures.caught_up_s),
        row.verdict,
    )


HEADINGS = ("times", "sent", "failed", "raw", "refused", "lost", "doubled", "p50 ms", "p99 ms", "max ms", "ready s",
            "caught up s", "verdict")  # fmt: skip


def number(value: float | None) -> str:
    """Return a figure as people read it; a dash for none."""
    return "-" if value is None else f"{value:.1f}"
