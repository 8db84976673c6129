"""The last step of a tower: its outputs as factors, and as a bias if it has one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class TowerOutputs:
    """How outputs become factors.

    Attributes:
        n_factors: The first outputs, k; one more is the bias, if there is one.
        scale: What factors are multiplied by.
        bias_scale: What the bias is multiplied by.
        has_bias: Whether there is a bias.
        normalise: Whether factors have the length 1 before they are scaled.
    """

    n_factors: int
    scale: float = 1.0
    bias_scale: float = 1.0
    has_bias: bool = False
    normalise: bool = False

    def split(self, outputs: Float32) -> tuple[Float32, Float32]:
        """Return factors, float32 (m, k), and biases, float32 (m,), given outputs, float32 (m, k or k + 1)."""
        k = self.n_factors
        factors = outputs[:, :k].copy()
        if self.normalise:
            lengths = np.sqrt(np.einsum("ij,ij->i", factors, factors))
            lengths[lengths == 0] = 1
            factors /= lengths[:, np.newaxis]
        factors *= np.float32(self.scale)
        biases = outputs[:, k] * np.float32(self.bias_scale) if self.has_bias else np.zeros(len(outputs), np.float32)
        return factors, biases

    def check(self, n_outputs: int) -> None:
        """Check that there are as many outputs.

        Raises:
            ModelRefused: There are not, or a scale is not a finite number above 0.
        """
        scales = (self.scale, self.bias_scale)
        if self.n_factors + self.has_bias != n_outputs:
            raise ModelRefused(f"A tower has {n_outputs} outputs for {self.n_factors} factors.")
        if not np.isfinite(scales).all() or min(scales) <= 0:
            raise ModelRefused(f"The scales of a tower are not finite numbers above 0: {scales}.")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TowerOutputs":
        """Build them from `to_json()`.

        Raises:
            ModelRefused: A value is missing or invalid.
        """
        try:
            return cls(
                int(value["n_factors"]),
                float(value["scale"]),
                float(value["bias_scale"]),
                bool(value["has_bias"]),
                bool(value["normalise"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelRefused(f"The outputs of a tower lack a value or have an invalid one: {error}.") from error
