import itertools

import pytest

from ops.pages import page, plots
from ops.pages.axis import Axis
from ops.pages.drawing import Drawing
from ops.pages.plots import Estimate, Figure, Mark

_X, _Y = Axis("x", 0, 10), Axis("y", 0, 10)


def _labels(plot: Drawing) -> list[tuple[float, float, str]]:
    """Return the place and text of each label of a mark or row."""
    return [(one.attributes["x"], one.attributes["y"], one.text) for one in plot.shapes
            if one.tag == "text" and one.attributes["class"] == "name" and "x" in one.attributes]  # fmt: skip


def test_larger_values_are_further_right_and_further_up() -> None:
    """Inside the plot, each with its tip."""
    plot = plots.scatter_plot("plot", _X, _Y, [Mark(1, 1, "a"), Mark(9, 1, "b"), Mark(1, 9, "c")])
    circles = [one for one in plot.shapes if one.tag == "circle"]
    (ax, ay), (bx, by), (cx, cy) = [(one.attributes["cx"], one.attributes["cy"]) for one in circles]
    assert [one.tip for one in circles] == ["a", "b", "c"]
    assert 0 < ax == cx < bx < plot.width
    assert 0 < cy < ay == by < plot.height


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    """Where there is room around the points."""
    names = ["svd", "knn_basic", "slope_one"]
    marks = [Mark(5 + step / 10, 5, name, label=name) for step, name in enumerate(names)]
    placed = [one for one in _labels(plots.scatter_plot("plot", _X, _Y, marks)) if one[2] in names]
    assert [name for _, _, name in placed] == names
    boxes = [(x, y - 8, x + 6 * len(name), y) for x, y, name in placed]
    for one, other in itertools.combinations(boxes, 2):
        is_beside = one[2] <= other[0] or other[2] <= one[0]
        is_above = one[3] <= other[1] or other[3] <= one[1]
        assert is_beside or is_above


@pytest.mark.parametrize("name", ["svd", "an algorithm with a name that is far too long for the row that it has"])
def test_a_long_row_name_is_cut_and_has_a_tip(name: str) -> None:
    """The tip has the whole name."""
    plot = plots.dot_plot("plot", Axis("x", 0, 1), [(name, [Estimate(0.5, "half")])])
    (shown,) = [one for one in plot.shapes if one.tag == "text" and one.text[:3] == name[:3]]
    assert name.startswith(shown.text.rstrip("…"))
    assert name in (shown.text, shown.tip)


def test_a_bar_is_as_long_as_its_value() -> None:
    """From zero."""
    plot = plots.bar_chart("plot", Axis.over([1.0, 4.0], "x", from_zero=True), [("a", 4.0, "4"), ("b", 1.0, "1")])
    first, second = [one.attributes["width"] for one in plot.shapes if one.tag == "rect"]
    assert first == pytest.approx(4 * second, abs=0.5)


def test_a_figure_without_interval_or_better_direction_has_no_mark_of_it() -> None:
    """And a whisker where there is an interval."""
    axis = Axis.over([1.0, 3.0], "x")
    with_interval = plots.dot_plot("plot", axis, [("a", [Estimate(2.0, "a", (1.0, 3.0))])], better="better →")
    without = Figure("plot", plots.dot_plot("plot", axis, [("a", [Estimate(2.0, "a")])]))
    assert any("whisker" in one.attributes["class"] for one in with_interval.shapes if one.tag == "path")
    assert "better →" in [text for _, _, text in _labels(with_interval)]
    assert not any(one.tag == "path" for one in without.plot.shapes)


def test_values_of_json_are_written_as_text() -> None:
    """Whatever their type."""
    assert page.in_words({"a": [1, 2.5], "b": None, "c_d": True}) == "a 1, 2.5, b none, c_d yes"
