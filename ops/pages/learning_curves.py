"""Plots of how networks learnt: loss and validation by epoch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ops.pages import plots
from ops.pages.axis import Axis
from ops.pages.drawing import Drawing
from ops.pages.plots import Figure, Mark

# The last two belong to the kept epoch alone.
_OTHER = ("epoch", "loss", "kept", "ranker_gain", "ranker_gain_error")


def figures(results: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Yield, for each result of a comparison whose algorithm learns by epochs, a plot of each curve on one split."""
    for result in results:
        curves = [curve for curve in result.get("learning_curves", ()) if curve]
        if not curves:
            continue
        points, name = curves[0], str(result.get("label", result["algorithm"]))
        kept = next(point["epoch"] for point in points if point["kept"])
        which = "" if len(curves) == 1 else f" On the first of {len(curves)} splits."
        for quantity in ("loss", *(key for key in points[0] if key not in _OTHER)):
            yield Figure(
                f"{name}: {quantity} by epoch",
                _plot(name, quantity, points),
                f"Epoch {kept} is kept.{which}",
                [plots.key("an epoch", 0), plots.key("the kept epoch", 1)],
            )


def _plot(name: str, quantity: str, points: Sequence[Mapping[str, Any]]) -> Drawing:
    marks = [
        Mark(
            point["epoch"],
            point[quantity],
            f"{name}, epoch {point['epoch']}: {quantity} {point[quantity]:.4f}",
            series=int(point["kept"]),
        )
        for point in points
    ]
    across = Axis.over([mark.x for mark in marks], "epoch")
    up = Axis.over([mark.y for mark in marks], quantity)
    return plots.scatter_plot(f"{quantity} of {name} by epoch", across, up, marks, [(mark.x, mark.y) for mark in marks])
