import io
import json
from typing import Any

import pytest
from rich.console import Console

from ops.drill import drill_text, verdict
from ops.drill.audit_call import Audit, understand
from ops.drill.faults.fault_catalogue import select
from ops.drill.ledger import Findings
from ops.drill.recollect_program import Ended
from ops.drill.stage import Stage
from tests.support.drilled_stage import drilled_round, drilled_stage


def _words(stage: Stage, **options: Any) -> list[str]:
    return [row.verdict for row in verdict.conclude([stage], 2, **options).rows]


def test_a_drill_in_which_everything_held_is_ok() -> None:
    """A row for each round, in order."""
    concluded = verdict.conclude([drilled_stage()], 2)
    assert concluded.ok
    assert [row.name for row in concluded.rows] == ["quiet", "kill-any", "redis-frozen"]
    assert {row.verdict for row in concluded.rows} == {"PASS"}
    assert (concluded.breaches, concluded.notes) == ((), ())


@pytest.mark.parametrize(
    "change",
    [
        {"findings": Findings(owed=10, lost=[-1.0])},
        {"findings": Findings(owed=10, doubled=[15.0])},
        {"findings": Findings(owed=10, altered=[15.0])},
        {"audit": Audit(ok=False, missing=1, breaches=("one is missing",))},
        {"audit": Audit(ok=False)},
        {"leaks": ("replica-0.log",)},
    ],
)
def test_a_wrong_archive_or_receipt_fails_the_drill_whatever_the_rounds_say(change: dict[str, Any]) -> None:
    """Even if what was lost belongs to no round."""
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


def test_what_was_not_done_is_skipped_never_passed() -> None:
    """For want of a need, of an installation, or of anything to strike at that moment."""
    (clock,) = select("clock-ahead")
    stage = drilled_stage(rounds=[drilled_round("kill-any", 0, strikes=0)], skipped=[(clock, "it needs a C compiler")])
    concluded = verdict.conclude([stage], 2, skipped=[(clock, "it needs a system that the drill starts itself")])
    assert [row.verdict for row in concluded.rows] == ["SKIPPED"] * 3
    assert [row.why[0] for row in concluded.rows] == [
        "what it was to strike did not run at that moment",
        "it needs a C compiler",
        "it needs a system that the drill starts itself",
    ]
    assert concluded.ok
    assert "0 of 0 rounds kept their promise, 3 faults were skipped" in drill_text.as_lines(concluded)


def test_a_late_generator_is_said() -> None:
    """Its lateness is in the latencies."""
    assert "late with 1 %" in verdict.conclude([drilled_stage(late_p99_s=0.2)], 2).notes[0]


def test_lines_table_and_object_say_the_same() -> None:
    """Verdicts, breaches in full, and what the archive holds."""
    stage = drilled_stage(
        rounds=[drilled_round("kill-any", 0, lost=3)], findings=Findings(owed=9, lost=[1.0, 2.0, 3.0])
    )
    concluded = verdict.conclude([stage], 2)
    lines = "\n".join(drill_text.as_lines(concluded))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(drill_text.as_table(concluded))
    table = " ".join(console.export_text().split())
    told = json.loads(json.dumps(verdict.as_json(concluded, [stage], {"seed": 7})))
    for said in (
        "kill-any",
        "BREACH",
        "3 acknowledged events or answered lists are not in the archive",
        "1300 accepted",
    ):
        assert said in lines
        assert said in table
    assert told["ok"] is False
    assert told["seed"] == 7
    assert told["faults"][0]["figures"]["lost"] == 3
    assert told["stages"][0] | {"audit": None} == {
        "name": "as shipped <",
        "owed": 9,
        "lost": 3,
        "doubled": 0,
        "altered": 0,
        "examples": [],
        "audit": None,
    }


def test_an_audit_is_read_as_it_was_told() -> None:
    """The keys are those of docs/archive.md; its exit status decides."""
    told = {"accepted": 5, "archived": 3, "missing": 1, "duplicated": 1, "ok": False, "breaches": ["one is missing"]}
    expected = Audit(ok=False, accepted=5, archived=3, missing=1, duplicated=1, breaches=("one is missing",))
    assert understand(Ended(1, json.dumps(told).encode(), b"")) == expected
    assert understand(Ended(0, json.dumps(told | {"breaches": []}).encode(), b"")).ok


@pytest.mark.parametrize("told", [b"", b"[]", b"{}", b'{"accepted": null}', b"no json"])
def test_a_receipt_that_cannot_be_read_is_a_breach(told: bytes) -> None:
    """Silence proves nothing."""
    found = understand(Ended(0, told, b"recollect: something went wrong"))
    assert not found.ok
    assert "something went wrong" in found.breaches[0]
