"""User towers of the size that trainings choose by default, with random weights."""

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.models.history.weights import HistoryWeights
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.history_tower import HistoryTower
from service.models.networks.network import UserTower
from service.models.networks.perceptron import Perceptron
from service.models.networks.sequence import SequenceTower
from service.models.networks.tower_outputs import TowerOutputs

Float32 = NDArray[np.float32]
_EMBEDDING: Final = 64
_ATTRIBUTES: Final = (8, 3, 22)
_HALF_LIVES: Final = (1.0, 4.0, 16.0)
_HIDDEN: Final = (256, 128)
_N_BLOCKS: Final = 2
_N_HEADS: Final = 2
# The latest interactions that a tower reads.
WINDOW: Final = 200


def history_tower(n_factors: int, rng: np.random.Generator) -> tuple[UserTower, int]:
    """Return the user tower of `two_tower`, and the width of the items' inputs."""
    inputs = HistoryInputs(_EMBEDDING, _HALF_LIVES, 1.0, None, HistoryWeights(window=WINDOW))
    widths = (inputs.n_numbers + _EMBEDDING, *_HIDDEN, n_factors)
    layers = [(_normal(rng, a, b), _normal(rng, b)) for a, b in pairwise(widths)]
    attributes = _normal(rng, sum(_ATTRIBUTES), _EMBEDDING)
    tower = HistoryTower(inputs, _ATTRIBUTES, attributes, Perceptron(layers), TowerOutputs(n_factors, normalise=True))
    return tower, inputs.n_columns


def sequence_tower(n_factors: int, rng: np.random.Generator) -> tuple[UserTower, int]:
    """Return the transformer of `sequence`, and the width of the items' inputs."""
    d = n_factors
    tensors: dict[str, NDArray[Any]] = {"norm.weight": np.ones(d, np.float32), "norm.bias": np.zeros(d, np.float32)}
    layers = {
        "query_key_value": (3 * d, d),
        "out": (d, d),
        "up": (4 * d, d),
        "down": (d, 2 * d),
        "gate_attention": (d, d),
        "gate_forward": (d, d),
    }
    for number in range(_N_BLOCKS):
        prefix = f"blocks.{number}."
        for norm in ("norm_attention", "norm_forward"):
            tensors |= {f"{prefix}{norm}.{name}": tensors[f"norm.{name}"] for name in ("weight", "bias")}
        for layer, (n_outputs, n_inputs) in layers.items():
            tensors[f"{prefix}{layer}.weight"] = _normal(rng, n_outputs, n_inputs)
            tensors[f"{prefix}{layer}.bias"] = _normal(rng, n_outputs)
        tensors[f"{prefix}distance"] = _normal(rng, _N_HEADS, WINDOW)
    return SequenceTower.of(tensors, {"n_blocks": _N_BLOCKS, "n_heads": _N_HEADS}), d


def _normal(rng: np.random.Generator, *shape: int) -> Float32:
    drawn: Float32 = rng.standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)
    return drawn
