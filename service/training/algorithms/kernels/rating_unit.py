"""The unit that ratings are learnt in, so that learning rates and regularisation suit any scale (pure).

A step of gradient descent on a product of factors is no linear function of the ratings: rates that suit 1 to 5 diverge
on 1 to 100. So what is learnt from are ratings in a unit of their own, and what was learnt is published in the
ratings' unit again. All ratings times a number give the same model times that number.

Invariant: a scale that ends at 5 and begins between 0 and 1 is left as it is, to the last bit: that is where the
defaults come from.
"""

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Float32, Interactions

# The largest rating, and how much the ratings span, where defaults were found to be good.
_HIGH: Final = 5.0
_SPAN: Final = 4.0


class Unit(NamedTuple):
    """A rating r is learnt as (r - offset) * factor."""

    factor: float = 1.0
    offset: float = 0.0

    def value(self, learnt: float) -> float:
        """Return a learnt level in the ratings' unit."""
        return learnt / self.factor + self.offset if self != Unit() else learnt

    def of_biases(self, learnt: Float32) -> Float32:
        """Return learnt differences of levels, float32 of any shape, in the ratings' unit."""
        return learnt if self.factor == 1 else _single(learnt.astype(np.float64) / self.factor)

    def of_factors(self, learnt: Float32) -> Float32:
        """Return one side's learnt factors, so that products of both sides' are in the ratings' unit."""
        return learnt if self.factor == 1 else _single(learnt.astype(np.float64) * self.factor**-0.5)


def _single(values: NDArray[np.float64]) -> Float32:
    # What does not fit becomes infinite, which a snapshot refuses in a sentence.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def unit_of(low: float, high: float, *, from_zero: bool = False) -> Unit:
    """Return the unit for a scale.

    Args:
        low: The least rating.
        high: The largest one, at least as large.
        from_zero: Whether what is learnt may not be below zero; a scale that does not begin near zero is then moved to
            begin there.
    """
    offset = low if from_zero and not _is_near_zero(low, high) else 0.0
    low, high = low - offset, high - offset
    if high == low:
        return Unit(_HIGH / abs(high) if high else 1.0, offset)
    # Scales that begin near zero differ by their unit alone, others by where they begin, too.
    return Unit(_HIGH / high if _is_near_zero(low, high) else _SPAN / (high - low), offset)


def _is_near_zero(low: float, high: float) -> bool:
    return 0 <= low * _HIGH <= high


def in_unit(data: Interactions, unit: Unit) -> Interactions:
    """Return a set with its ratings in a unit to learn in; the same set where that changes nothing."""
    if unit == Unit():
        return data
    ratings = (data.ratings.astype(np.float64) - unit.offset) * unit.factor
    return replace(data, ratings=ratings.astype(np.float32))
