"""The rating scale: the lowest and the highest value of a rating."""

import math
from typing import NamedTuple, Self

from service.errors import UsageError


class RatingScale(NamedTuple):
    """A closed interval."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read a scale such as "1:5", "0.5:5" or "-10:10".

        Args:
            text: Two numbers separated by a colon.
            name: The option or setting that holds the text, for the message.

        Raises:
            UsageError: The text is malformed, or the first number is not below the second.
        """
        low_text, _, high_text = text.partition(":")
        try:
            scale = cls(float(low_text), float(high_text))
        except ValueError:
            scale = cls(math.nan, math.nan)
        if not (math.isfinite(scale.low) and math.isfinite(scale.high) and scale.low < scale.high):
            raise UsageError(f"{name} must be LOW:HIGH, two numbers of which the first is smaller, not {text!r}.")
        return scale

    @property
    def middle(self) -> float:
        """The value halfway between both ends."""
        return (self.low + self.high) / 2

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}"
