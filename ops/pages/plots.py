"""Plots of measurements: scatter plots, dot plots with intervals, bar charts; pure.

Invariant: every value can be read as the tip of its mark. Series differ in colour and in shape, so that a plot is
readable in light, in dark and in print. A plot is laid out 400 pixels wide and may be drawn larger. Its `better` is the
better direction in words; empty for none.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ops.pages.axis import Axis, Scale
from ops.pages.drawing import Drawing, Key, Shape, circle, label, line, path, polyline, rect

N_SERIES: Final = 8
_WIDTH: Final = 400.0
_RIGHT: Final = _WIDTH - 12
_LETTER_PX: Final = 6.3  # width of a letter of 11 pixels, rounded up
_ROW_PX: Final = 22.0
_RADIUS_PX: Final = 4.5

_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mark:
    """One point of a scatter plot, with the text beside it; `series`, from 0, selects its colour and shape."""

    x: float
    y: float
    tip: str
    series: int = 0
    label: str = ""
    is_hollow: bool = False


@dataclass(frozen=True)
class Estimate:
    """One value of a row, with its interval if it has one; `series`, from 0, selects its colour and shape."""

    value: float
    tip: str
    interval: tuple[float, float] | None = None
    series: int = 0


@dataclass(frozen=True)
class Figure:
    """A plot with its title, legend and caption."""

    title: str
    plot: Drawing
    caption: str = ""
    legend: Sequence[Key] = ()


def key(name: str, series: int, *, is_hollow: bool = False) -> Key:
    """Return the legend entry of a series."""
    return Key(name, _sign(7, 7, series, is_hollow=is_hollow))


def scatter_plot(
    name: str, x: Axis, y: Axis, marks: Sequence[Mark], curve: Sequence[tuple[float, float]] = (), *, better: str = ""
) -> Drawing:
    """Return points on two axes, above a curve.

    Labels avoid points and each other where there is room.
    """
    top = 20.0 if better else 8.0
    bottom = top + 240.0
    ticks = y.ticks()
    left = 24 + _LETTER_PX * max((len(text) for _, text in ticks), default=1)
    across, down = x.scale(left, _RIGHT), y.scale(bottom, top)
    points = [(across(mark.x), down(mark.y)) for mark in marks]
    shapes = [
        *_vertical_axis(y.label, ticks, down, left),
        *_horizontal_axis(x, across, top, bottom, better),
        *([polyline("line", [(across(at), down(value)) for at, value in curve])] if curve else []),
        *(
            _sign(*point, mark.series, mark.tip, is_hollow=mark.is_hollow)
            for point, mark in zip(points, marks, strict=True)
        ),
        *_labels(points, [mark.label for mark in marks], left, bottom),
    ]
    return Drawing(name, _WIDTH, bottom + _axis_height(x), shapes)


def dot_plot(name: str, axis: Axis, rows: Sequence[tuple[str, Sequence[Estimate]]], *, better: str = "") -> Drawing:
    """Return one row for each name, from the top, with its values as marks and their intervals as whiskers."""
    left, top, bottom = _row_frame([row_name for row_name, _ in rows], better)
    across = axis.scale(left, _RIGHT)
    shapes = list(_horizontal_axis(axis, across, top, bottom, better))
    for index, (row_name, estimates) in enumerate(rows):
        middle = top + _ROW_PX * (index + 0.5)
        shapes += [_row_label(row_name, left, middle), line("rule", left, middle, _RIGHT, middle)]
        for one in estimates:
            if one.interval is not None:
                low, high = map(across, one.interval)
                ends = "".join(f"M{end:.1f} {middle - 4:.1f}v8" for end in (low, high))
                shapes.append(path(f"s{one.series % N_SERIES} whisker", f"M{low:.1f} {middle:.1f}H{high:.1f}{ends}"))
            shapes.append(_sign(across(one.value), middle, one.series, one.tip))
    return Drawing(name, _WIDTH, bottom + _axis_height(axis), shapes)


def bar_chart(name: str, axis: Axis, bars: Sequence[tuple[str, float, str]], *, better: str = "") -> Drawing:
    """Return one bar for each (name, value, text of the value), from the top; the axis includes 0."""
    left, top, bottom = _row_frame([row_name for row_name, _, _ in bars], better)
    across = axis.scale(left, _WIDTH - 10 - _LETTER_PX * max((len(text) for _, _, text in bars), default=0))
    shapes = list(_horizontal_axis(axis, across, top, bottom, better))
    for index, (row_name, value, text) in enumerate(bars):
        middle = top + _ROW_PX * (index + 0.5)
        start, width = across(0.0), max(across(value) - across(0.0), 1.0)
        shapes += [
            _row_label(row_name, left, middle),
            rect("s0 bar", start, middle - 7, width, 14, f"{row_name}: {text}"),
            label(text, start + width + 5, middle + 4),
        ]
    return Drawing(name, _WIDTH, bottom + _axis_height(axis), shapes)


def _vertical_axis(text: str, ticks: Sequence[tuple[float, str]], down: Scale, left: float) -> Iterable[Shape]:
    for value, tick in ticks:
        yield line("grid", left, down(value), _RIGHT, down(value))
        yield label(tick, left - 6, down(value) + 4, "end")
    middle = (down(ticks[0][0]) + down(ticks[-1][0])) / 2 if ticks else 120.0
    turned = {"class": "name", "transform": f"translate(11 {middle:.1f}) rotate(-90)", "text-anchor": "middle"}
    yield Shape("text", turned, text)


def _horizontal_axis(axis: Axis, across: Scale, top: float, bottom: float, better: str) -> Iterable[Shape]:
    free = -math.inf
    for value, text in axis.ticks():
        x, half = across(value), _LETTER_PX * len(text) / 2
        yield line("grid", x, top, x, bottom)
        # A label that would overlap its neighbour is left out; the marks' tips have the value.
        if x - half >= free:
            yield label(text, min(x, _WIDTH - half), bottom + 14, "middle")
            free = x + half + 4
    if axis.label:
        yield label(axis.label, (across(axis.low) + across(axis.high)) / 2, bottom + 31, "middle", "name")
    if better:
        yield label(better, _RIGHT, 12, "end", "name")


def _axis_height(axis: Axis) -> float:
    return 38.0 if axis.label else 20.0


def _row_frame(names: Sequence[str], better: str) -> tuple[float, float, float]:
    """Return the left, top and bottom edge of the area of some rows."""
    left = min(16 + _LETTER_PX * max(map(len, names), default=0), _WIDTH / 2.4)
    top = 18.0 if better else 6.0
    return left, top, top + _ROW_PX * len(names)


def _row_label(name: str, left: float, middle: float) -> Shape:
    room = int((left - 10) / _LETTER_PX)
    if len(name) <= room:
        return label(name, left - 8, middle + 4, "end", "name")
    return label(f"{name[: room - 1]}…", left - 8, middle + 4, "end", "name", tip=name)


def _sign(x: float, y: float, series: int, tip: str = "", *, is_hollow: bool = False) -> Shape:
    kind = f"s{series % N_SERIES} {'hollow' if is_hollow else 'solid'}"
    r = _RADIUS_PX
    if series % 4 == 0:
        return circle(kind, x, y, r - 0.5, tip)
    outline = {
        1: f"M{x - r + 0.5:.1f} {y - r + 0.5:.1f}h{2 * r - 1}v{2 * r - 1}h{1 - 2 * r}z",
        2: f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z",
        3: f"M{x:.1f} {y - r - 0.5:.1f}l{r + 0.5} {2 * r}h{-2 * r - 1}z",
    }[series % 4]
    return path(kind, outline, tip)


def _labels(points: Sequence[tuple[float, float]], texts: Sequence[str], left: float, bottom: float) -> Iterable[Shape]:
    """Yield each label at the place beside its point where it covers least."""
    boxes: list[_Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for own, ((x, y), text) in enumerate(zip(points, texts, strict=True)):
        if not text:
            continue
        width = _LETTER_PX * len(text)
        right, middle, far = 8.0, -width / 2, -8 - width
        offsets = [(right, 4), (far, 4), (middle, -9), (middle, 17), (right, -7), (right, 15), (far, -7), (far, 15)]
        others = [box for index, box in enumerate(boxes) if index != own]
        candidates = [(x + dx, y + dy - 9, x + dx + width, y + dy + 2) for dx, dy in offsets]
        best = min(candidates, key=lambda box: _covered(box, others, left, bottom))
        boxes.append(best)
        yield label(text, best[0], best[3] - 2, kind="name")


def _covered(box: _Box, others: Iterable[_Box], left: float, bottom: float) -> float:
    """Return the area in which a label overlaps others; a pixel outside the plot counts a thousand."""
    outside = (left - box[0], box[2] - _WIDTH, box[3] - bottom, -box[1])
    return 1000 * sum(max(0.0, pixels) for pixels in outside) + sum(_overlap(box, other) for other in others)


def _overlap(one: _Box, other: _Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
