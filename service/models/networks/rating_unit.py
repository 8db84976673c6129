"""The unit in which a network reads and learns ratings: standard deviations from their mean.

Invariant: ratings of any scale give the same numbers, because they are rounded to a grid that is far finer than they
matter, and far coarser than the rounding of float32.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused

GRID: Final = 4096.0
# Relative to the mean: ratings closer together are equal but for rounding.
_LEAST_DEVIATION: Final = 1e-6
# Of equal ratings, relative to them: what is learnt of nothing must not matter.
_OF_EQUAL: Final = 1 / 64
# In deviations; a rating farther away counts as this.
LARGEST: Final = 64.0


class RatingUnit(NamedTuple):
    """Ratings as standard deviations from their mean.

    Attributes:
        mean: In units of the rating scale.
        deviation: Above 0.
    """

    mean: float
    deviation: float

    @classmethod
    def of(cls, ratings: NDArray[np.float32]) -> "RatingUnit":
        """Return the unit of some ratings, float32 (n,), n > 0; of equal ones the deviation is small beside them."""
        values = ratings.astype(np.float64)
        mean, deviation = float(values.mean()), float(values.std())
        if deviation <= _LEAST_DEVIATION * abs(mean):
            deviation = _OF_EQUAL * abs(mean) or _OF_EQUAL
        return cls(mean, deviation)

    @classmethod
    def from_json(cls, value: Any) -> "RatingUnit":
        """Build one from its two numbers.

        Raises:
            ModelRefused: They are not finite, or the deviation is not above 0.
        """
        try:
            unit = cls(*map(float, value))
        except (TypeError, ValueError) as error:
            raise ModelRefused(f"The unit of the ratings is invalid: {error}.") from error
        if not np.isfinite(unit).all() or unit.deviation <= 0:
            raise ModelRefused(f"The unit of the ratings is not of finite numbers above 0: {tuple(unit)}.")
        return unit

    def learnt(self, ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ratings, float32 (n,), in this unit: float32 (n,)."""
        values = ratings.astype(np.float64)
        values -= self.mean
        values *= GRID / self.deviation
        np.rint(values, out=values)
        values *= 1 / GRID
        return np.clip(values, -LARGEST, LARGEST, out=values).astype(np.float32)
