"""Axes of plots: where a value lies, and which values get a tick; pure.

Invariant: every value that an axis was made over lies on it, and so does every tick.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_MARGIN: Final = 0.05
_ROUND_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Axis:
    """A scale between two values.

    Attributes:
        label: The quantity and its unit; empty if the plot's title names them.
        low: The value at its beginning.
        high: The value at its end, above `low`.
        log: Whether the scale is logarithmic; `low` is above 0 then.
        categories: Names at 0, 1, 2 and so on; empty for a numeric axis.
    """

    label: str
    low: float
    high: float
    log: bool = False
    categories: tuple[str, ...] = ()

    @classmethod
    def over(cls, values: Iterable[float], label: str, *, log: bool = False, from_zero: bool = False) -> "Axis":
        """Return an axis over some finite values, with a margin.

        Args:
            values: At least one; above 0 if the axis is logarithmic.
            label: The quantity and its unit.
            log: Whether the scale is logarithmic.
            from_zero: Whether the axis includes 0, and begins there if no value is below.
        """
        found = list(values)
        low, high = min(found), max(found)
        if log:
            # At least a decade: closer values would look far apart.
            decades = max(math.log10(high / low), 1.0)
            middle, half = math.log10(low * high) / 2, decades * (0.5 + _MARGIN)
            return cls(label, 10 ** (middle - half), 10 ** (middle + half), log=True)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        margin = (high - low) * _MARGIN or abs(high) * _MARGIN or 1.0
        return cls(label, low if from_zero and low == 0 else low - margin, high + margin)

    @classmethod
    def categorical(cls, names: Sequence[str], label: str) -> "Axis":
        """Return an axis of names, at 0, 1, 2 and so on."""
        return cls(label, -0.5, len(names) - 0.5, categories=tuple(names))

    def fraction(self, value: float) -> float:
        """Return where a value lies, from 0 at the beginning to 1 at the end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def scale(self, begin: float, end: float) -> Scale:
        """Return a function from values, clipped to the axis, to pixels between its two ends."""
        return lambda value: begin + self.fraction(self.clip(value)) * (end - begin)

    def clip(self, value: float) -> float:
        """Return the value, or the end of the axis it lies beyond."""
        return min(max(value, self.low), self.high)

    def ticks(self, max_steps: int = 6) -> list[tuple[float, str]]:
        """Return the values of the ticks, ascending, with their labels.

        Args:
            max_steps: The most steps a numeric axis is divided into; a categorical one has a tick for each name.
        """
        if self.categories:
            return [(float(index), name) for index, name in enumerate(self.categories)]
        if self.log:
            return [(value, abbreviated(value)) for value in self._decades(max_steps)]
        step = _round_up((self.high - self.low) / max_steps)
        multiples = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        # A step has at most two significant digits; further digits are rounding errors.
        digits = max(0, 1 - math.floor(math.log10(step)))
        return [(multiple * step, _tick_label(round(multiple * step, digits))) for multiple in multiples]

    def _decades(self, max_steps: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
            inside = [value for value in values if self.low <= value <= self.high]
            if len(inside) <= max_steps:
                return inside
        return inside[:: -(-len(inside) // max_steps)]


def abbreviated(value: float) -> str:
    """Return a value in three digits: 0.05, 12, 3.2k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _tick_label(value: float) -> str:
    return abbreviated(value) if abs(value) >= 10_000 else f"{value:.10g}"


def _round_up(least: float) -> float:
    """Return the smallest round step that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return power * next(step for step in _ROUND_STEPS if step * power >= least * (1 - 1e-9))
