"""Plots as SVG that stands inside a page: points on two axes, rows of points with intervals, bars; pure.

Invariants: a plot is text that loads nothing and runs nothing; every value in it can be read as the title of its mark;
every text is escaped. Colours are classes (`s0` to `s7` of `sheet`), and marks differ in shape too, so that a
plot is read in light, in dark and in print. A plot is made for a width of 400 pixels and may be drawn larger.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from ops.pages.axis import Axis

N_SERIES: Final = 8
_WIDTH: Final = 400.0
_LETTER: Final = 6.3  # width of a letter of 11 pixels, with room to spare
_ROW: Final = 22.0
_RADIUS: Final = 4.5


@dataclass(frozen=True)
class Mark:
    """One point.

    Attributes:
        x: Its place on the horizontal axis.
        y: Its place on the vertical one.
        text: What it says when it is pointed at.
        series: Which colour and shape it has, from 0.
        label: What stands beside it; empty for nothing.
        is_hollow: Whether only its outline is drawn.
    """

    x: float
    y: float
    text: str
    series: int = 0
    label: str = ""
    is_hollow: bool = False


@dataclass(frozen=True)
class Reach:
    """One value of a row, with its interval.

    Attributes:
        value: The value.
        text: What it says when it is pointed at.
        interval: Its lower and upper end; None for none.
        series: Which colour and shape it has, from 0.
    """

    value: float
    text: str
    interval: tuple[float, float] | None = None
    series: int = 0


@dataclass(frozen=True)
class Key:
    """What one kind of mark means.

    Attributes:
        name: Its meaning.
        series: Its colour and shape, from 0.
        is_hollow: Whether only its outline is drawn.
    """

    name: str
    series: int
    is_hollow: bool = False


def scatter(
    name: str,
    x: Axis,
    y: Axis,
    marks: Sequence[Mark],
    line: Sequence[tuple[float, float]] = (),
    *,
    better: str = "",
) -> str:
    """Return points on two axes.

    Args:
        name: What the plot shows, for those who do not see it.
        x: The horizontal axis.
        y: The vertical one, which points up.
        marks: The points; labels are placed so that they cover neither points nor each other, where there is room.
        line: Points of a line below the marks.
        better: Which way is better, as a word or two; empty if none is.
    """
    top, height = 20.0 if better else 8.0, 240.0
    ticks = y.ticks()
    left = 24 + _LETTER * max((len(text) for _, text in ticks), default=1)
    across, down = _Span(x, left, _WIDTH - 12), _Span(y, top + height, top)
    pieces = [_vertical_grid(y.label, ticks, down, left, _WIDTH - 12)]
    pieces.append(_horizontal_ticks(x, across, top, top + height))
    if better:
        pieces.append(_direction(better))
    if line:
        points = " ".join(f"{across(at):.1f},{down(value):.1f}" for at, value in line)
        pieces.append(f'<polyline class="line" points="{points}"/>')
    pieces += [_mark(across(mark.x), down(mark.y), mark.series, mark.text, mark.is_hollow) for mark in marks]
    pieces += _labels([(across(mark.x), down(mark.y), mark.label) for mark in marks], left, top + height)
    return _svg(name, top + height + _below(x), pieces)


def rows(name: str, axis: Axis, of: Sequence[tuple[str, Sequence[Reach]]], *, better: str = "") -> str:
    """Return one row for each name, with its values as marks and their intervals as lines through them.

    Args:
        name: What the plot shows, for those who do not see it.
        axis: The horizontal axis.
        of: The rows, the first one on top.
        better: Which way is better, as a word or two; empty if neither is.
    """
    left = _names_width(label for label, _ in of)
    top = 18.0 if better else 6.0
    bottom = top + _ROW * len(of)
    across = _Span(axis, left, _WIDTH - 12)
    pieces = [_horizontal_ticks(axis, across, top, bottom)]
    if better:
        pieces.append(_direction(better))
    for place, (label, reaches) in enumerate(of):
        middle = top + _ROW * (place + 0.5)
        pieces.append(_row_name(label, left, middle))
        pieces.append(
            f'<line class="rule" x1="{left:.1f}" x2="{_WIDTH - 12:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
        )
        for reach in reaches:
            if reach.interval is not None:
                begin, end = (across(value) for value in reach.interval)
                pieces.append(
                    f'<path class="s{reach.series % N_SERIES} whisker" d="M{begin:.1f} {middle:.1f}H{end:.1f}'
                    f'M{begin:.1f} {middle - 4:.1f}v8M{end:.1f} {middle - 4:.1f}v8"/>'
                )
            pieces.append(_mark(across(reach.value), middle, reach.series, reach.text, False))  # noqa: FBT003
    return _svg(name, bottom + _below(axis), pieces)


def bars(name: str, axis: Axis, of: Sequence[tuple[str, float, str]], *, better: str = "") -> str:
    """Return one bar for each name, from 0, with its value written at its end.

    Args:
        name: What the plot shows, for those who do not see it.
        axis: The horizontal axis, from 0.
        of: Name, value and how the value is written, the first one on top.
        better: What longer means, as a word or two; empty if nothing.
    """
    left = _names_width(label for label, _, _ in of)
    room = 10 + _LETTER * max((len(text) for _, _, text in of), default=0)
    top = 18.0 if better else 6.0
    bottom = top + _ROW * len(of)
    across = _Span(axis, left, _WIDTH - room)
    pieces = [_horizontal_ticks(axis, across, top, bottom)]
    if better:
        pieces.append(_direction(better))
    for place, (label, value, text) in enumerate(of):
        middle = top + _ROW * (place + 0.5)
        wide = max(across(value) - across(0.0), 1.0)
        pieces.append(_row_name(label, left, middle))
        pieces.append(
            f'<rect class="s0 bar" x="{across(0.0):.1f}" y="{middle - 7:.1f}" width="{wide:.1f}" height="14" rx="2">'
            f"<title>{escape(f'{label}: {text}')}</title></rect>"
            f'<text x="{across(0.0) + wide + 5:.1f}" y="{middle + 4:.1f}">{escape(text)}</text>'
        )
    return _svg(name, bottom + _below(axis), pieces)


def legend(keys: Sequence[Key]) -> str:
    """Return what the marks of a plot mean, as HTML."""
    spans = []
    for key in keys:
        sign = _shape(7, 7, key.series, key.is_hollow)
        spans.append(
            f'<span class="key"><svg viewBox="0 0 14 14" aria-hidden="true">{sign}</svg>{escape(key.name)}</span>'
        )
    return f'<p class="keys">{" ".join(spans)}</p>'


class _Span:
    """An axis between two pixels."""

    def __init__(self, axis: Axis, begin: float, end: float) -> None:
        self._axis, self._begin, self._end = axis, begin, end

    def __call__(self, value: float) -> float:
        return self._begin + self._axis.share(value) * (self._end - self._begin)


def _svg(name: str, height: float, pieces: Iterable[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(name)}">'
        f"{''.join(pieces)}</svg>"
    )


def _vertical_grid(label: str, ticks: Sequence[tuple[float, str]], down: _Span, left: float, right: float) -> str:
    lines = []
    for value, text in ticks:
        y = down(value)
        lines.append(f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    middle = (down(ticks[0][0]) + down(ticks[-1][0])) / 2 if ticks else 120.0
    lines.append(
        f'<text class="name" transform="translate(11 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(label)}</text>"
    )
    return "".join(lines)


def _horizontal_ticks(axis: Axis, across: _Span, top: float, bottom: float) -> str:
    ticks = axis.ticks()
    lines = []
    free = -math.inf
    for value, text in ticks:
        x = across(value)
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
        half = _LETTER * len(text) / 2
        # Names that would run into each other are left out; the marks have them too.
        if x - half >= free:
            end = min(x, _WIDTH - half)
            lines.append(f'<text x="{end:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{escape(text)}</text>')
            free = x + half + 4
    if axis.label:
        middle = (across(axis.low) + across(axis.high)) / 2
        lines.append(
            f'<text class="name" x="{middle:.1f}" y="{bottom + 31:.1f}" text-anchor="middle">'
            f"{escape(axis.label)}</text>"
        )
    return "".join(lines)


def _direction(better: str) -> str:
    return f'<text class="name" x="{_WIDTH - 12:.0f}" y="12" text-anchor="end">{escape(better)}</text>'


def _below(axis: Axis) -> float:
    """Return the room that a horizontal axis needs for what is written under it."""
    return 38.0 if axis.label else 20.0


def _names_width(names: Iterable[str]) -> float:
    return min(16 + _LETTER * max(map(len, names), default=0), _WIDTH / 2.4)


def _row_name(label: str, left: float, middle: float) -> str:
    room = int((left - 10) / _LETTER)
    text = label if len(label) <= room else f"{label[: room - 1]}…"
    title = "" if text == label else f"<title>{escape(label)}</title>"
    return f'<text class="name" x="{left - 8:.1f}" y="{middle + 4:.1f}" text-anchor="end">{escape(text)}{title}</text>'


def _mark(x: float, y: float, series: int, text: str, is_hollow: bool) -> str:  # noqa: FBT001
    return f"<g>{_shape(x, y, series, is_hollow)}<title>{escape(text)}</title></g>"


def _shape(x: float, y: float, series: int, is_hollow: bool) -> str:  # noqa: FBT001
    kind = f"s{series % N_SERIES} {'hollow' if is_hollow else 'solid'}"
    r = _RADIUS
    if series % 4 == 0:
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r - 0.5}"/>'
    outline = {
        1: f"M{x - r + 0.5:.1f} {y - r + 0.5:.1f}h{2 * r - 1}v{2 * r - 1}h{1 - 2 * r}z",
        2: f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z",
        3: f"M{x:.1f} {y - r - 0.5:.1f}l{r + 0.5} {2 * r}h{-2 * r - 1}z",
    }[series % 4]
    return f'<path class="{kind}" d="{outline}"/>'


def _labels(points: Sequence[tuple[float, float, str]], left: float, bottom: float) -> list[str]:
    """Place each label beside its point, where it covers least."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    lines = []
    for own, (x, y, label) in enumerate(points):
        if not label:
            continue
        wide = _LETTER * len(label)
        places = [(x + 8, y + 4), (x - 8 - wide, y + 4), (x - wide / 2, y - 9), (x - wide / 2, y + 17)]
        places += [(x + 8, y - 7), (x + 8, y + 15), (x - 8 - wide, y - 7), (x - 8 - wide, y + 15)]

        def covered(place: tuple[float, float], wide: float = wide, own: int = own) -> float:
            box = (place[0], place[1] - 9, place[0] + wide, place[1] + 2)
            outside = (
                max(0.0, left - box[0]) + max(0.0, box[2] - _WIDTH) + max(0.0, box[3] - bottom) + max(0.0, -box[1])
            )
            others = (other for index, other in enumerate(taken) if index != own)
            return 1000 * outside + sum(_overlap(box, other) for other in others)

        at = min(places, key=covered)
        taken.append((at[0], at[1] - 9, at[0] + wide, at[1] + 2))
        lines.append(f'<text class="name" x="{at[0]:.1f}" y="{at[1]:.1f}">{escape(label)}</text>')
    return lines


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, tall)
