from ops.drill import verdict
from ops.pages import drill_page
from ops.pages.timeline import timeline
from tests.support.drilled_stage import drilled_round, drilled_stage
from tests.support.standalone_page import assert_standalone

_ABOUT = {"title": "The drill", "seed": 7, "command": "recollect chaos --data '<b>'", "versions": {"python": "3.11"}}


def test_the_page_stands_alone() -> None:
    """It loads nothing, its elements are closed, and texts of the run are escaped."""
    problem = "<script>alert(1)</script>"
    rounds = [*drilled_stage().rounds, drilled_round("reload", 30, problems=(problem,))]
    stage = drilled_stage(rounds=rounds, title='a "quoted" <b>')
    structure = assert_standalone(drill_page.render(verdict.conclude([stage], 2), [stage], _ABOUT))
    assert structure.tags.count("b") == len(rounds)
    assert ("aria-label", 'timeline of a "quoted" <b>') in structure.attributes
    for text in (problem, "recollect chaos --data '<b>'", 'a "quoted" <b>', "seed 7; python 3.11"):
        assert text in structure.text


def test_the_timeline_has_every_round_injection_failure_and_restart_inside_its_frame() -> None:
    """Its line of waiting events breaks where a replica did not answer."""
    stage = drilled_stage()
    drawing = timeline(stage)
    kinds = [shape.attributes["class"] for shape in drawing.shapes]
    tips = [shape.tip for shape in drawing.shapes]
    targets = [
        f"{injection.from_s:.1f} s: {done.name} on {target}"
        for done in stage.rounds
        for injection in done.injections
        for target in injection.targets
    ]
    assert set(targets) <= set(tips)
    for kind, count in {
        "band": 3,
        "injection": 4,
        "injection hold": 2,
        "target": len(targets),
        "failed": 1,
        "retried": 6,
        "start": 2,
        "line wait": 2,
    }.items():
        assert kinds.count(kind) == count, kind
    for shape in drawing.shapes:
        place = shape.attributes
        if shape.tag == "rect":
            assert 0 <= place["x"] <= drawing.width - place["width"] + 1
            assert 0 <= place["y"] <= drawing.height - place["height"]
        if shape.tag == "polyline":
            points = [tuple(map(float, point.split(","))) for point in place["points"].split()]
            assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in points)
