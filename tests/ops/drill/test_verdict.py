import io
import json
from typing import Any

import pytest
from rich.console import Console

from ops.drill import drill_text, verdict
from ops.drill.faults.fault_catalogue import select
from ops.drill.oracle import Findings
from ops.drill.system.recollect_commands import AuditSummary, CommandResult, parse_receipt
from tests.support.drilled_stage import drilled_round, drilled_stage


def test_a_drill_without_a_breach_is_ok() -> None:
    """A row for each round, in order."""
    concluded = verdict.conclude([drilled_stage()], 2)
    assert concluded.ok
    assert [row.name for row in concluded.rows] == ["quiet", "kill-any", "redis-frozen"]
    assert {row.verdict for row in concluded.rows} == {"PASS"}
    assert (concluded.breaches, concluded.notes) == ((), ())


@pytest.mark.parametrize(
    "change",
    [
        {"findings": Findings(expected=10, lost=[-1.0])},
        {"findings": Findings(expected=10, duplicated=[15.0])},
        {"findings": Findings(expected=10, altered=[15.0])},
        {"receipt": AuditSummary(ok=False, missing=1, breaches=("one is missing",))},
        {"receipt": AuditSummary(ok=False)},
        {"leaks": ("replica-0.log",)},
        {"live_state": ("the live state of 2 users is not that of the archive",)},
    ],
)
def test_a_wrong_archive_or_receipt_fails_the_drill(change: dict[str, Any]) -> None:
    """Even if the loss belongs to no round."""
    concluded = verdict.conclude([drilled_stage(**change)], 2)
    assert not concluded.ok
    assert concluded.breaches


def test_one_broken_round_fails_the_drill() -> None:
    """With the reason in its row, and only there."""
    concluded = verdict.conclude([drilled_stage(rounds=[drilled_round("kill-any", 0, failures={"eof": 1})])], 2)
    assert not concluded.ok
    assert [(row.verdict, row.why) for row in concluded.rows] == [
        ("BREACH", ("1 of 1000 requests failed (eof 1)",)),
    ]


def test_a_fault_that_was_not_injected_is_skipped() -> None:
    """A need, a system or a running target was missing."""
    (clock,) = select("clock-ahead")
    stage = drilled_stage(
        rounds=[drilled_round("kill-any", 0, injections=0)], skipped=[(clock, "it needs a C compiler")]
    )
    concluded = verdict.conclude([stage], 2, skipped=[(clock, "it needs a system that the drill starts itself")])
    assert [row.verdict for row in concluded.rows] == ["SKIPPED"] * 3
    assert [row.why[0] for row in concluded.rows] == [
        "its targets did not run at that moment",
        "it needs a C compiler",
        "it needs a system that the drill starts itself",
    ]
    assert concluded.ok
    assert "0 of 0 rounds kept their promise, 3 faults were skipped" in drill_text.as_lines(concluded)


def test_a_late_generator_is_noted() -> None:
    """The latencies include its lateness."""
    assert "late with 1 %" in verdict.conclude([drilled_stage(late_p99_s=0.2)], 2).notes[0]


def test_lines_table_and_object_agree() -> None:
    """Verdicts, breaches in full, and what the archive holds."""
    stage = drilled_stage(
        rounds=[drilled_round("kill-any", 0, lost=3)], findings=Findings(expected=9, lost=[1.0, 2.0, 3.0])
    )
    concluded = verdict.conclude([stage], 2)
    lines = "\n".join(drill_text.as_lines(concluded))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(drill_text.as_table(concluded))
    table = " ".join(console.export_text().split())
    result = json.loads(json.dumps(verdict.as_json(concluded, [stage], {"seed": 7})))
    for text in (
        "kill-any",
        "BREACH",
        "3 acknowledged events or answered lists are not in the archive",
        "1300 accepted",
    ):
        assert text in lines
        assert text in table
    assert result["ok"] is False
    assert result["seed"] == 7
    assert result["faults"][0]["figures"]["lost"] == 3
    assert result["stages"][0] | {"audit": None} == {
        "name": "default settings <",
        "expected": 9,
        "lost": 3,
        "duplicated": 0,
        "altered": 0,
        "examples": [],
        "audit": None,
    }


def test_a_receipt_is_parsed() -> None:
    """The keys are those of docs/archive.md; its exit status decides."""
    receipt = {"accepted": 5, "archived": 3, "missing": 1, "duplicated": 1, "ok": False, "breaches": ["one is missing"]}
    expected = AuditSummary(ok=False, accepted=5, archived=3, missing=1, duplicated=1, breaches=("one is missing",))
    assert parse_receipt(CommandResult(1, json.dumps(receipt).encode(), b"")) == expected
    assert parse_receipt(CommandResult(0, json.dumps(receipt | {"breaches": []}).encode(), b"")).ok


@pytest.mark.parametrize("output", [b"", b"[]", b"{}", b'{"accepted": null}', b"no json"])
def test_an_unreadable_receipt_is_a_breach(output: bytes) -> None:
    """Its sentence contains the error output."""
    found = parse_receipt(CommandResult(0, output, b"recollect: something went wrong"))
    assert not found.ok
    assert "something went wrong" in found.breaches[0]
