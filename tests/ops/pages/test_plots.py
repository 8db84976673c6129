import itertools
import re

import pytest

from ops.pages import plots, sheet
from ops.pages.axis import Axis
from ops.pages.plots import Key, Mark, Reach
from tests.support.tidy_process import standing_alone

NASTY = "<b>\"svd\" & 'x'</b>"


def test_every_value_can_be_read_and_every_text_is_escaped() -> None:
    """As the title of its mark; what came from data is no markup."""
    marks = [Mark(1.0, 2.0, NASTY, label=NASTY), Mark(3.0, 4.0, "svd: 3, 4", series=2, is_hollow=True)]
    scatter = plots.scatter(
        NASTY, Axis.over([1.0, 3.0], NASTY), Axis.over([2.0, 4.0], NASTY), marks, [(1.0, 2.0), (3.0, 4.0)]
    )
    rows = plots.rows(NASTY, Axis.over([1.0, 3.0], NASTY), [(NASTY, [Reach(2.0, NASTY, (1.0, 3.0))])], better=NASTY)
    bars = plots.bars(NASTY, Axis.over([1.0], NASTY, from_zero=True), [(NASTY, 1.0, NASTY)])
    keys = plots.legend([Key(NASTY, 0), Key("other", 1, is_hollow=True)])
    page = sheet.page(NASTY, [sheet.figure(NASTY, svg, about=NASTY, keys=keys) for svg in (scatter, rows, bars)])
    structure = standing_alone(page)
    assert {NASTY, "svd: 3, 4"} <= set(structure.titles)
    assert "b" not in structure.tags


def test_marks_stand_where_their_values_say() -> None:
    """Larger values further right and further up."""
    svg = plots.scatter("plot", Axis("x", 0, 10), Axis("y", 0, 10), [Mark(1, 1, "a"), Mark(9, 1, "b"), Mark(1, 9, "c")])
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    (ax, ay), (bx, by), (cx, cy) = places
    assert bx > ax
    assert by == ay
    assert cy < ay
    assert cx == ax
    assert all(0 < x < 400 for x, _ in places)


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    """Where there is room around the points."""
    names = ["svd", "knn_basic", "slope_one"]
    marks = [Mark(5 + step / 10, 5, name, label=name) for step, name in enumerate(names)]
    svg = plots.scatter("plot", Axis("x", 0, 10), Axis("y", 0, 10), marks)
    placed = re.findall(r'<text class="name" x="([\d.]+)" y="([\d.]+)">([^<]*)</text>', svg)
    assert [name for _, _, name in placed] == names
    boxes = [(float(x), float(y) - 8, float(x) + 6 * len(name), float(y)) for x, y, name in placed]
    for one, other in itertools.combinations(boxes, 2):
        is_beside = one[2] <= other[0] or other[2] <= one[0]
        is_above = one[3] <= other[1] or other[3] <= one[1]
        assert is_beside or is_above


@pytest.mark.parametrize("name", ["svd", "an algorithm with a name that is far too long for the row that it has"])
def test_a_long_name_is_cut_and_can_be_read(name: str) -> None:
    """It is there as a whole when it is pointed at."""
    svg = plots.rows("plot", Axis("x", 0, 1), [(name, [Reach(0.5, "half")])])
    shown = re.search(r'<text class="name"[^>]*text-anchor="end">([^<]*)', svg)
    assert shown is not None
    assert name.startswith(shown[1].rstrip("…"))
    assert (name == shown[1]) or f"<title>{name}</title>" in svg


def test_a_bar_is_as_long_as_its_value() -> None:
    """From zero."""
    svg = plots.bars("plot", Axis.over([1.0, 4.0], "x", from_zero=True), [("a", 4.0, "4"), ("b", 1.0, "1")])
    wide = [float(width) for width in re.findall(r'width="([\d.]+)"', svg)]
    assert wide[0] == pytest.approx(4 * wide[1], abs=0.5)


def test_what_is_not_there_leaves_no_heading() -> None:
    """A section without content is none."""
    assert sheet.section("Notes", [sheet.listed([]), sheet.plots([])]) == ""
    assert sheet.said({"a": [1, 2.5], "b": None, "c_d": True}) == "a 1, 2.5, b none, c_d yes"
