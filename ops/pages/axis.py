"""Where a value stands on an axis of a plot, and which values are named there; pure.

Invariant: every value that an axis was made over stands within it, and so does every tick.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_MARGIN: Final = 0.05
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """A scale between two values.

    Attributes:
        label: What is measured, and its unit; empty if the plot's title says it.
        low: The value at its beginning.
        high: The value at its end, above `low`.
        log: Whether steps are even on a logarithmic scale; `low` is above 0 then.
        names: What stands at 0, 1, 2 and so on, if the axis is no scale but a few names.
    """

    label: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()

    @classmethod
    def over(cls, values: Iterable[float], label: str, *, log: bool = False, from_zero: bool = False) -> "Axis":
        """Return an axis over some finite values, with a margin.

        Args:
            values: At least one; above 0 throughout if the axis is logarithmic.
            label: What is measured, and its unit.
            log: Whether steps are even on a logarithmic scale.
            from_zero: Whether 0 is on it, and begins it if no value is below.
        """
        found = list(values)
        low, high = min(found), max(found)
        if log:
            # A decade at least: closer values would seem far apart.
            spread = max(math.log10(high / low), 1.0) * _MARGIN
            middle, half = math.log10(low * high) / 2, max(math.log10(high / low), 1.0) / 2
            return cls(label, 10 ** (middle - half - spread), 10 ** (middle + half + spread), log=True)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        room = (high - low) * _MARGIN or abs(high) * _MARGIN or 1.0
        return cls(label, low if from_zero and low == 0 else low - room, high + room)

    @classmethod
    def named(cls, names: Sequence[str], label: str) -> "Axis":
        """Return an axis of a few names, which stand at 0, 1, 2 and so on."""
        return cls(label, -0.5, len(names) - 0.5, names=tuple(names))

    def share(self, value: float) -> float:
        """Return where a value stands, from 0 at the beginning to 1 at the end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Return values to name, ascending, with how they are written.

        Args:
            most: Into how many steps a scale is cut at most; names are all there.
        """
        if self.names:
            return [(float(place), name) for place, name in enumerate(self.names)]
        if self.log:
            return [(value, short(value)) for value in self._decades(most)]
        step = _step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        places = range(first, math.floor(self.high / step + 1e-9) + 1)
        # A step has two digits at most; more of them are rounding.
        digits = max(0, 1 - math.floor(math.log10(step)))
        return [(place * step, _plain(round(place * step, digits))) for place in places]

    def _decades(self, most: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
            inside = [value for value in values if self.low <= value <= self.high]
            if len(inside) <= most:
                return inside
        return inside[:: -(-len(inside) // most)]


def short(value: float) -> str:
    """Return a value in few letters: 0.05, 12, 3k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _plain(value: float) -> str:
    return short(value) if abs(value) >= 10_000 else f"{value:.10g}"


def _step(least: float) -> float:
    """Return a round step that is not below the least."""
    power = 10.0 ** math.floor(math.log10(least))
    return power * next(step for step in _STEPS if step * power >= least * (1 - 1e-9))
