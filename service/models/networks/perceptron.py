"""Layers of units with rectifiers between them (a multilayer perceptron), evaluated in numpy."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused

Float32 = NDArray[np.float32]
_WEIGHT: Final = "weight_"
_BIAS: Final = "bias_"


class Perceptron:
    """x -> relu(x W + b) for each layer but the last, which has no rectifier.

    Args:
        layers: Of each layer the weights, float32 (n_inputs, n_outputs), and the biases, float32 (n_outputs,).

    Raises:
        ModelRefused: There is no layer, the shapes do not fit each other, or a number is not finite.
    """

    def __init__(self, layers: Sequence[tuple[Float32, Float32]]) -> None:
        if not layers:
            raise ModelRefused("A perceptron has no layers.")
        self._layers: Final = [(np.ascontiguousarray(weight), np.ascontiguousarray(bias)) for weight, bias in layers]
        width = self._layers[0][0].shape[0]
        for number, (weight, bias) in enumerate(self._layers):
            if weight.ndim != 2 or weight.shape[0] != width or bias.shape != weight.shape[1:]:
                raise ModelRefused(
                    f"Layer {number} of a perceptron has weights {weight.shape} and biases {bias.shape}, "
                    f"and {width} inputs."
                )
            require_finite(f"{_WEIGHT}{number}", weight)
            require_finite(f"{_BIAS}{number}", bias)
            width = weight.shape[1]

    @property
    def n_inputs(self) -> int:
        """The number of inputs."""
        return int(self._layers[0][0].shape[0])

    @property
    def n_outputs(self) -> int:
        """The number of outputs."""
        return int(self._layers[-1][1].size)

    def __call__(self, inputs: Float32) -> Float32:
        """Return the outputs, float32 (n_outputs,) or (m, n_outputs), of inputs (n_inputs,) or (m, n_inputs)."""
        values = inputs
        for weight, bias in self._layers[:-1]:
            values = values @ weight
            values += bias
            np.maximum(values, 0, out=values)
        weight, bias = self._layers[-1]
        outputs: Float32 = values @ weight
        outputs += bias
        return outputs

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name."""
        found: dict[str, NDArray[Any]] = {}
        for number, (weight, bias) in enumerate(self._layers):
            found[f"{_WEIGHT}{number}"], found[f"{_BIAS}{number}"] = weight, bias
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]]) -> "Perceptron":
        """Build it from `tensors()`, which may be among others.

        Raises:
            ModelRefused: As of the constructor, or a layer has weights without biases, or numbers of another type.
        """
        layers: list[tuple[Float32, Float32]] = []
        while (weight := tensors.get(f"{_WEIGHT}{len(layers)}")) is not None:
            bias = tensors.get(f"{_BIAS}{len(layers)}")
            if bias is None or weight.dtype != np.float32 or bias.dtype != np.float32:
                raise ModelRefused(f"Layer {len(layers)} of a perceptron has no biases, or numbers of another type.")
            layers.append((weight, bias))
        if sum(name.startswith((_WEIGHT, _BIAS)) for name in tensors) != 2 * len(layers):
            raise ModelRefused(f"A perceptron has other weights than those of its {len(layers)} layers.")
        return cls(layers)


def require_finite(name: str, numbers: NDArray[Any]) -> None:
    """Check that all numbers are finite.

    Raises:
        ModelRefused: One is not.
    """
    if numbers.size and not np.isfinite(numbers).all():
        raise ModelRefused(f"{name} holds numbers that are not finite.")
