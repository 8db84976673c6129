"""The input of a user tower: a history as sums of the embeddings of its items, and what else is known of the user.

The embeddings of an item are a row of the model's `input_factors`: d numbers for that the user chose the item; of a
network that reads ratings d more for how the user rated it, and the item's mean rating. The parts of an input are

    for each half-life h:  sum over j of w_j 0.5^(later_j / h) e_j  /  (sum over j of |w_j| 0.5^(later_j / h))^exponent
    if ratings are read:   sum over j of r_j f_j / n^exponent;  sum of r_j / (n + c);  sum of r_j^2 / (n + c)
    always:                log(1 + n) / 5

where later_j is the number of later interactions, w_j the weight of the interaction by its type (below 0 of a dislike),
and r_j the rating above the item's mean, in the unit of ratings. Several half-lives let the tower tell the last item
from a long taste (the towers of Covington, Adams and Sargin, "Deep neural networks for YouTube recommendations", RecSys
2016, average all of them alike). The half-life 0 stands for no decay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.history.user_history import UserHistory
from service.models.history.weights import HistoryWeights
from service.models.networks.inputs import InputTables
from service.models.networks.rating_unit import RatingUnit

Float32 = NDArray[np.float32]
# Ratings that a mean starts with, so that one rating says little.
MEAN_COUNT: Final = np.float32(3.0)
LOG_UNIT: Final = 5.0
_LONGEST: Final = 100_000


@dataclass(frozen=True)
class HistoryInputs:
    """How a history becomes numbers.

    Attributes:
        width: The numbers d of an embedding.
        half_lives: In interactions; 0 for no decay.
        exponent: Of the sum of the weights that a sum is divided by: 0 for sums, 1 for means.
        unit: The unit of the ratings; None of a network that does not read them.
        weights: What an interaction weighs by its type and rating, without recency; with a window.
    """

    width: int
    half_lives: tuple[float, ...]
    exponent: float
    unit: RatingUnit | None
    weights: HistoryWeights

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ModelRefused: One is out of its range.
        """
        numbers = (*self.half_lives, self.exponent)
        window = self.weights.window
        if self.width < 1 or window is None or not 1 <= window <= _LONGEST or not self.half_lives:
            raise ModelRefused("The history of a user tower has no width, no window or no half-life.")
        if not np.isfinite(numbers).all() or min(numbers) < 0:
            raise ModelRefused("A half-life or the exponent of a user tower is negative or not finite.")

    @cached_property
    def window(self) -> int:
        """The most interactions of a history."""
        return self.weights.window or _LONGEST

    @property
    def n_numbers(self) -> int:
        """The length of the input."""
        of_ratings = 0 if self.unit is None else self.width + 2
        return len(self.half_lives) * self.width + of_ratings + 1

    @property
    def n_columns(self) -> int:
        """The columns of `input_factors`."""
        return self.width if self.unit is None else 2 * self.width + 1

    @cached_property
    def decays(self) -> Float32:
        """The factor of each interaction by recency: float32 (number of half-lives, window), oldest first."""
        later = np.arange(self.window - 1, -1, -1, dtype=np.float64)
        rows = [np.exp2(-later / half_life) if half_life else np.ones(self.window) for half_life in self.half_lives]
        return np.array(rows, dtype=np.float32)

    def of(self, history: UserHistory, tables: InputTables) -> Float32:
        """Return the input of a user: float32 (n_numbers,); zeros if no interaction has a weight.

        Args:
            history: Within the window.
            tables: With the embeddings of items.
        """
        n, width, n_sums = history.rows.size, self.width, len(self.half_lives)
        numbers = np.zeros(self.n_numbers, dtype=np.float32)
        weights = self.weights.of(history).astype(np.float32)
        if not weights.any():
            return numbers
        embeddings = tables.input_factors.take(history.rows, axis=0)
        signals = np.empty((n_sums + (self.unit is not None), n), dtype=np.float32)
        np.multiply(self.decays[:, -n:], weights, out=signals[:n_sums])
        signals[:n_sums] *= self.scales(np.abs(signals[:n_sums]).sum(axis=1))[:, np.newaxis]
        if self.unit is not None:
            residuals = self.unit.learnt(history.values)
            residuals -= embeddings[:, 2 * width]
            np.multiply(residuals, self.scales(np.float32(n)), out=signals[n_sums])
            divisor = n + MEAN_COUNT
            numbers[-3] = residuals.sum() / divisor
            numbers[-2] = np.square(residuals).sum() / divisor
        sums = signals @ embeddings
        numbers[: n_sums * width].reshape(n_sums, width)[:] = sums[:n_sums, :width]
        if self.unit is not None:
            numbers[n_sums * width : (n_sums + 1) * width] = sums[n_sums, width : 2 * width]
        numbers[-1] = np.log1p(n) / LOG_UNIT
        return numbers

    def scales(self, totals: Any) -> Any:
        """Return what sums are multiplied by, given the sums of the absolute weights; 1 for 0."""
        return np.where(totals > 0, totals, np.float32(1)) ** np.float32(-self.exponent)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "width": self.width,
            "half_lives": list(self.half_lives),
            "exponent": self.exponent,
            "unit": None if self.unit is None else list(self.unit),
            "weights": self.weights.description(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "HistoryInputs":
        """Build them from `to_json()`.

        Raises:
            ModelRefused: A value is missing or invalid.
        """
        try:
            return cls(
                int(value["width"]),
                tuple(map(float, value["half_lives"])),
                float(value["exponent"]),
                None if value["unit"] is None else RatingUnit.from_json(value["unit"]),
                HistoryWeights.from_description(value["weights"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelRefused(f"The history of a user tower lacks a value or has an invalid one: {error}.") from error
