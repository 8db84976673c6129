"""The unit in which ratings are learnt, so that learning rates and regularisation suit any rating scale.

A step of gradient descent on a product of factors is not linear in the ratings: rates that suit 1 to 5 diverge on 1 to
100. Fits therefore learn from rescaled ratings and publish in the original unit. Scaling all ratings scales the model.

Invariant: a scale that ends at 5 and begins between 0 and 1 is unchanged to the last bit; the defaults assume it.
"""

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.training.interactions import Float32, Interactions

# Upper end and length of the scale that the defaults assume.
_HIGH: Final = 5.0
_SPAN: Final = 4.0


class Unit(NamedTuple):
    """Rating r is learnt as (r - offset) * factor."""

    factor: float = 1.0
    offset: float = 0.0

    def value(self, learnt: float) -> float:
        """Return a learnt mean in the unit of the ratings."""
        return learnt / self.factor + self.offset if self != Unit() else learnt

    def of_biases(self, learnt: Float32) -> Float32:
        """Return learnt biases, float32 of any shape, in the unit of the ratings."""
        return learnt if self.factor == 1 else _single(learnt.astype(np.float64) / self.factor)

    def of_factors(self, learnt: Float32) -> Float32:
        """Return the learnt factors of one side, so that products of both sides are in the unit of the ratings."""
        return learnt if self.factor == 1 else _single(learnt.astype(np.float64) * self.factor**-0.5)


def _single(values: NDArray[np.float64]) -> Float32:
    # An overflow becomes infinity, which `ModelSnapshot` refuses.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def unit_of(low: float, high: float, *, from_zero: bool = False) -> Unit:
    """Return the unit for the rating scale from low to high.

    `from_zero` asks for learnt ratings of at least 0: a scale that does not begin near zero is moved to begin there.
    """
    offset = low if from_zero and not _is_near_zero(low, high) else 0.0
    low, high = low - offset, high - offset
    if high == low:
        return Unit(_HIGH / abs(high) if high else 1.0, offset)
    # Scales that begin near zero differ in unit alone, others also in their lower end.
    return Unit(_HIGH / high if _is_near_zero(low, high) else _SPAN / (high - low), offset)


def _is_near_zero(low: float, high: float) -> bool:
    return 0 <= low * _HIGH <= high


def in_unit(data: Interactions, unit: Unit) -> Interactions:
    """Return a set with its ratings in a unit; the same object if the unit changes nothing."""
    if unit == Unit():
        return data
    ratings = (data.ratings.astype(np.float64) - unit.offset) * unit.factor
    return replace(data, ratings=ratings.astype(np.float32))
