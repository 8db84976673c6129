import io
import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from ops.drill import drill_text, verdict
from ops.drill.audit_call import Audit, understand
from ops.drill.drill_load import Sample
from ops.drill.faults.fault_catalogue import select
from ops.drill.faults.promise import Figures, Promise
from ops.drill.ledger import Findings
from ops.drill.needs import RunningParts
from ops.drill.recollect_program import Ended
from ops.drill.stage import QUIET, Band, Round, Stage
from ops.drill.system_watch import Measure, Seen
from ops.pages import drill_page

_PARTS = RunningParts(("replica-0",), ("nginx-0",), redis=True, consumer=True)
_ABOUT = {"title": "The drill", "seed": 7, "command": "recollect chaos --data '<b>'", "versions": {"python": "3.11"}}


def _figures(**changes: Any) -> Figures:
    kept = {"strikes": 2, "requests": 1000, "p50_ms": 2.0, "p99_ms": 9.0, "max_ms": 20.0, "list_p99_ms": 9.0}
    return Figures(**{**kept, "caught_up_s": 0.5, "ready_s": 0.7, **changes})


def _round(name: str, from_s: float, **changes: Any) -> Round:
    (fault,) = select(name)
    bands = (Band(from_s + 1, from_s + 1, ("nginx-0/worker",)), Band(from_s + 3, from_s + 6, ("redis",)))
    return Round(name, fault, fault.promise, from_s, from_s + 10, bands, _figures(**changes))


def _stage(**changes: Any) -> Stage:
    quiet = Round(QUIET, None, Promise(text="no request fails"), 0, 10, (), _figures(strikes=0))
    stage = Stage(
        title="as shipped <",
        parts=_PARTS,
        rounds=[quiet, _round("kill-any", 10), _round("redis-frozen", 20)],
        samples=[
            Sample(n / 10, 0.002 + n / 1e5, "recommend", 1 + (n % 50 == 0), None, "reset" if n == 42 else None)
            for n in range(300)
        ],
        seen=[
            Seen(0, "redis", "ready", 1, 0),
            Seen(11, "redis", "starting", 2, 1),
            Seen(11.4, "redis", "ready", 2, 1),
            Seen(20.0, "redis", "ready", 3, 2),
        ],
        measures=[Measure(n / 2, None if n == 20 else n, 1.0) for n in range(60)],
        findings=Findings(owed=1234),
        audit=Audit(ok=True, accepted=1300, archived=1300, missing=0, duplicated=0),
        late_p99_s=0.001,
    )
    for name, value in changes.items():
        setattr(stage, name, value)
    return stage


def _words(stage: Stage, **options: Any) -> list[str]:
    return [row.verdict for row in verdict.conclude([stage], 2, **options).rows]


def test_a_drill_in_which_everything_held_is_ok() -> None:
    """A row for each round, in order."""
    concluded = verdict.conclude([_stage()], 2)
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
    concluded = verdict.conclude([_stage(**change)], 2)
    assert not concluded.ok
    assert concluded.breaches


def test_one_broken_round_fails_the_drill() -> None:
    """With the reason in its row, and only there."""
    concluded = verdict.conclude([_stage(rounds=[_round("kill-any", 0, failures={"eof": 1})])], 2)
    assert not concluded.ok
    assert [(row.verdict, row.why) for row in concluded.rows] == [
        ("BREACH", ("1 of 1000 requests failed (eof 1)",)),
    ]


def test_what_was_not_done_is_skipped_never_passed() -> None:
    """For want of a need, of an installation, or of anything to strike at that moment."""
    (clock,) = select("clock-ahead")
    stage = _stage(rounds=[_round("kill-any", 0, strikes=0)], skipped=[(clock, "it needs a C compiler")])
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
    assert "late with 1 %" in verdict.conclude([_stage(late_p99_s=0.2)], 2).notes[0]


def test_lines_table_and_object_say_the_same() -> None:
    """Verdicts, breaches in full, and what the archive holds."""
    stage = _stage(rounds=[_round("kill-any", 0, lost=3)], findings=Findings(owed=9, lost=[1.0, 2.0, 3.0]))
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


class _Page(HTMLParser):
    """Collects what a page would load, and whether its elements are closed."""

    _VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "srcset", "action"}]
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "srcset", "action"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone() -> None:
    """It loads nothing, its elements are closed, and texts of the run are escaped."""
    stage = _stage(rounds=[*_stage().rounds, _round("reload", 30, complaints=("<script>alert(1)</script>",))])
    concluded = verdict.conclude([stage], 2)
    html = drill_page.render(concluded, [stage], _ABOUT)
    parsed = _Page()
    parsed.feed(html)
    assert parsed.open == []
    assert parsed.loads == []
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "recollect chaos --data &#x27;&lt;b&gt;&#x27;" in html
    assert "prefers-color-scheme:dark" in html


def test_the_timeline_has_every_round_strike_failure_and_restart_inside_its_frame() -> None:
    """And breaks its line of waiting events where nobody could be asked."""
    stage = _stage()
    html = drill_page.render(verdict.conclude([stage], 2), [stage], _ABOUT)
    svg = ET.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL)[0])  # type: ignore[index]
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    kinds = [element.attrib.get("class") for element in svg.iter()]
    assert kinds.count("band") == 3
    assert kinds.count("strike") == 4
    assert kinds.count("hold") == 2
    assert kinds.count("struck") == sum(len(band.targets) for done in stage.rounds for band in done.bands)
    titles = [element.text or "" for element in svg.iter() if element.tag.endswith("title")]
    for done in stage.rounds:
        for band in done.bands:
            for target in band.targets:
                assert f"{band.from_s:.1f} s: {done.name} struck {target}" in titles
    assert kinds.count("failed") == 1
    assert kinds.count("retried") == 6
    assert kinds.count("start") == 2
    assert kinds.count("wait") == 2
    for rect in svg.iter("rect"):
        assert 0 <= float(rect.attrib["x"]) <= width - float(rect.attrib["width"]) + 1
        assert 0 <= float(rect.attrib["y"]) <= height - float(rect.attrib["height"])
    for line in svg.iter("polyline"):
        for point in line.attrib["points"].split():
            left, top = map(float, point.split(","))
            assert 0 <= left <= width
            assert 0 <= top <= height


def test_an_audit_is_read_as_it_was_told() -> None:
    """The keys are DESIGN's; its exit status decides."""
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
