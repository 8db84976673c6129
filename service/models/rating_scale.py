"""The scale of ratings: the least and the largest value that a rating may have (pure)."""

import math
from typing import NamedTuple, Self

from service.errors import UsageError


class RatingScale(NamedTuple):
    """A scale; both ends belong to it."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read a scale such as "1:5", "0.5:5" or "-10:10".

        Args:
            text: Two numbers with a colon between them.
            name: The option or the setting that it was given by, for the message.

        Raises:
            UsageError: It is no such text, or the first number is not below the second.
        """
        low_text, _, high_text = text.partition(":")
        try:
            scale = cls(float(low_text), float(high_text))
        except ValueError:
            scale = cls(math.nan, math.nan)
        if not (math.isfinite(scale.low) and math.isfinite(scale.high) and scale.low < scale.high):
            raise UsageError(f"{name} must be LOW:HIGH, two numbers of which the first is smaller, not {text!r}")
        return scale

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}"
