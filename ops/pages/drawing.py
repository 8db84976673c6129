"""SVG elements as values; `templates/parts.html.j2` writes their markup and escapes every text.

The plots are our own SVG and not a plotting library's: they follow the page's light, dark and print colours, each mark
shows its value when it is pointed at, and a page of thirty stays below 200 kB without fonts or scripts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Shape:
    """One SVG element; `tip` is shown when it is pointed at."""

    tag: Literal["circle", "line", "path", "polyline", "rect", "text"]
    attributes: dict[str, Any]
    text: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Drawing:
    """An image made of shapes, the later ones on top; sizes in pixels, `name` for screen readers."""

    name: str
    width: float
    height: float
    shapes: Sequence[Shape]


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a sign within 14 by 14 pixels and its meaning."""

    meaning: str
    sign: Shape


def circle(kind: str, x: float, y: float, radius: float, tip: str = "") -> Shape:
    """Return a circle around (x, y)."""
    return Shape("circle", {"class": kind, "cx": _px(x), "cy": _px(y), "r": radius}, tip=tip)


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Shape:
    """Return a straight line."""
    return Shape("line", {"class": kind, "x1": _px(x1), "x2": _px(x2), "y1": _px(y1), "y2": _px(y2)})


def path(kind: str, commands: str, tip: str = "") -> Shape:
    """Return a path (SVG 2, section 9.3)."""
    return Shape("path", {"class": kind, "d": commands}, tip=tip)


def polyline(kind: str, points: Iterable[tuple[float, float]]) -> Shape:
    """Return a line through points."""
    return Shape("polyline", {"class": kind, "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points)})


def rect(kind: str, x: float, y: float, width: float, height: float, tip: str = "") -> Shape:
    """Return a rectangle whose upper left corner is (x, y)."""
    size = {"width": _px(width), "height": _px(height)}
    return Shape("rect", {"class": kind, "x": _px(x), "y": _px(y), **size}, tip=tip)


def label(
    text: str, x: float, y: float, anchor: Literal["start", "middle", "end"] = "start", kind: str = "", tip: str = ""
) -> Shape:
    """Return a text whose base line begins, is centred or ends at (x, y)."""
    return Shape("text", {"class": kind or None, "x": _px(x), "y": _px(y), "text-anchor": anchor}, text, tip)


def _px(value: float) -> float:
    return round(value, 1)
