"""How a model folds users in, as its manifest says it."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from service.errors import ModelRefused
from service.models.history_weights import HistoryWeights

METHODS: Final = ("decayed_sum", "neighbour_sum")


@dataclass(frozen=True)
class FoldIn:
    """How a model folds in.

    Attributes:
        method: One of `METHODS`, each a file of this package.
        weights: The weights of a user's interactions.
        parameters: Further numbers of the method, such as its regularisation.
    """

    method: str
    weights: HistoryWeights = field(default_factory=HistoryWeights)
    parameters: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the method and the numbers.

        Raises:
            ModelRefused: There is no such method, or a number is not finite.
        """
        if self.method not in METHODS:
            raise ModelRefused(f"The model folds in by {self.method!r}, and this release by {', '.join(METHODS)}.")
        if not all(np.isfinite(value) for value in self.parameters.values()):
            raise ModelRefused("A parameter of the fold-in is not finite.")

    def description(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"method": self.method, "weights": self.weights.description(), "parameters": self.parameters}

    @classmethod
    def from_description(cls, description: Any) -> "FoldIn":
        """Build one from `description()`.

        Raises:
            ModelRefused: A field is missing or has an invalid value.
        """
        try:
            parameters = {str(name): float(value) for name, value in description["parameters"].items()}
            weights = HistoryWeights.from_description(description["weights"])
            return cls(str(description["method"]), weights, parameters)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelRefused(f"The fold-in lacks a value or has an invalid one: {error}.") from error
