"""A ranker over pairs of a user and an item: a product with weights, and a perceptron, evaluated in numpy.

The logit of user u and item i, vectors of k numbers, is

    offset + sum over f of p_f u_f i_f + perceptron(u A + i B + (u * i) C + b)

and the score its logistic function, the probability that the user prefers the item to one that is drawn at random. The
perceptron's hidden layers have the ELU (Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning
by exponential linear units", ICLR 2016) or the rectifier. For one user the first step is a product of the items with
one matrix, B + diag(u) C.

Invariant: a score depends on the user and the item alone, to the last bit. Every item is a product of its own, because
linear algebra may add the rows of a larger product in different orders.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.networks.network import Tensors
from service.models.networks.perceptron import require_finite

Float32 = NDArray[np.float32]
ACTIVATIONS: Final[dict[str, Callable[[Float32], Float32]]] = {
    "elu": lambda values: np.maximum(values, 0) + np.expm1(np.minimum(values, 0)),
    "relu": lambda values: np.maximum(values, 0),
}
_MOST_CANDIDATES: Final = 100_000
_FIRST: Final = ("products", "of_users", "of_items", "of_products", "bias")


class PairRanker:
    """A ranker over pairs.

    Args:
        tensors: Float32 `products` (k,), `of_users`, `of_items`, `of_products` (k, h) and `bias` (h,), as p, A, B, C
            and b above; of each further layer `weight_1`, (h, h'), and `bias_1`, (h',), and so on. The last layer has
            one output.
        activation: One of `ACTIVATIONS`.
        n_candidates: See `Ranker`.
        offset: Added to each logit.

    Raises:
        ModelRefused: They do not fit each other, or a number is not finite.
    """

    kind: ClassVar[str] = "pair_ranker"

    def __init__(self, tensors: Tensors, activation: str, n_candidates: int, offset: float) -> None:
        self.n_candidates: Final = n_candidates
        self._activation: Final = activation
        self._offset: Final = offset
        self._tensors: Final = dict(tensors)
        self._products, self._of_users, self._of_items, self._of_products, self._bias = _first_layer(tensors)
        self._layers: Final = _further_layers(tensors, self._bias.size)
        if activation not in ACTIVATIONS or not 0 < n_candidates <= _MOST_CANDIDATES or not np.isfinite(offset):
            raise ModelRefused(
                f"A ranker has the activation {activation!r}, {n_candidates} candidates and the offset {offset}."
            )

    def scores(self, user: Float32, items: Float32) -> NDArray[np.float64]:
        """Score items, float32 (m, k), for a user, float32 (k,): float64 (m,), between 0 and 1."""
        of_items = np.empty((items.shape[1], self._bias.size + 1), dtype=np.float32)
        np.multiply(self._of_products, user[:, np.newaxis], out=of_items[:, 1:])
        of_items[:, 1:] += self._of_items
        np.multiply(self._products, user, out=of_items[:, 0])
        first = np.matmul(items[:, np.newaxis], of_items)
        of_user = user @ self._of_users
        of_user += self._bias
        values: Float32 = first[:, :, 1:] + of_user
        activation = ACTIVATIONS[self._activation]
        for weight, bias in self._layers:
            values = np.matmul(activation(values), weight)
            values += bias
        logits = values[:, 0, 0].astype(np.float64)
        logits += first[:, 0, 0]
        logits += self._offset
        return _logistic(logits)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name."""
        return dict(self._tensors)

    def settings(self) -> dict[str, Any]:
        """Return everything else as plain JSON values."""
        return {"activation": self._activation, "n_candidates": self.n_candidates, "offset": self._offset}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "PairRanker":
        """Build it from `tensors()` and `settings()`.

        Raises:
            ModelRefused: A tensor or a setting is missing, does not fit the others, or is not finite.
        """
        try:
            return cls(tensors, str(settings["activation"]), int(settings["n_candidates"]), float(settings["offset"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelRefused(f"A ranker lacks a setting or has an invalid one: {error}.") from error


def _first_layer(tensors: Tensors) -> tuple[Float32, ...]:
    missing = [name for name in _FIRST if name not in tensors or tensors[name].dtype != np.float32]
    if missing:
        raise ModelRefused(f"A ranker lacks weights, or has them of another type: {', '.join(missing)}.")
    found = tuple(np.ascontiguousarray(tensors[name]) for name in _FIRST)
    shapes = [array.shape for array in found]
    k, h = found[0].size, found[-1].size
    if shapes != [(k,), (k, h), (k, h), (k, h), (h,)] or not k:
        raise ModelRefused(f"The first layer of a ranker has the shapes {shapes}.")
    for name, array in zip(_FIRST, found, strict=True):
        require_finite(name, array)
    return found


def _further_layers(tensors: Tensors, width: int) -> list[tuple[Float32, Float32]]:
    layers: list[tuple[Float32, Float32]] = []
    while (weight := tensors.get(f"weight_{len(layers) + 1}")) is not None:
        number = len(layers) + 1
        bias = tensors.get(f"bias_{number}")
        if bias is None or weight.dtype != np.float32 or bias.dtype != np.float32:
            raise ModelRefused(f"Layer {number} of a ranker has no biases, or numbers of another type.")
        if weight.ndim != 2 or weight.shape[0] != width or bias.shape != weight.shape[1:]:
            raise ModelRefused(
                f"Layer {number} of a ranker has weights {weight.shape} and biases {bias.shape}, and {width} inputs."
            )
        require_finite(f"weight_{number}", weight)
        require_finite(f"bias_{number}", bias)
        layers.append((np.ascontiguousarray(weight), bias))
        width = weight.shape[1]
    if not layers or width != 1 or len(tensors) != len(_FIRST) + 2 * len(layers):
        raise ModelRefused("The last layer of a ranker does not have one output, or there are tensors of another kind.")
    return layers


def _logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) without overflow."""
    odds = np.exp(-np.abs(logits))
    probabilities: NDArray[np.float64] = np.where(logits >= 0, 1.0, odds) / (1.0 + odds)
    return probabilities
