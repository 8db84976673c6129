"""How a model folds users in, as its manifest says it."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from service.errors import ModelRefused
from service.models.history.weights import HistoryWeights

NETWORK: Final = "network"
# Each method, and the parameters that a model must give it; further ones have defaults.
METHODS: Final[dict[str, tuple[str, ...]]] = {
    "decayed_sum": (),
    "neighbour_sum": (),
    "implicit_ridge": ("reg", "reg_exp", "reg_pairs", "mean_rating"),
    "rating_ridge": ("reg_factors", "reg_factors_fixed", "reg_bias", "reg_bias_fixed", "biased", "mean_bias"),
    "non_negative": ("reg", "n_epochs", "start", "zero", "biased", "reg_bias", "lr_bias"),
    "residual_sum": ("reg_bias", "reg_bias_fixed", "biased", "residuals"),
    NETWORK: (),
}


@dataclass(frozen=True)
class FoldIn:
    """How a model folds in.

    Attributes:
        method: One of `METHODS`, each a file of this package; `network` is the user tower of the model.
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
        missing = [name for name in METHODS[self.method] if name not in self.parameters]
        if missing:
            raise ModelRefused(f"The fold-in by {self.method} lacks {', '.join(missing)}.")

    @property
    def is_approximate(self) -> bool:
        """Whether trained users differ from the fold-ins of their histories by more than rounding."""
        return self.method in {"rating_ridge", "non_negative"}

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
