"""Published networks of every kind, with random weights."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.history.weights import HistoryWeights
from service.models.networks.category_tower import CategoryTower
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.history_tower import HistoryTower
from service.models.networks.inputs import InputTables
from service.models.networks.pair_ranker import PairRanker
from service.models.networks.perceptron import Perceptron
from service.models.networks.rating_unit import RatingUnit
from service.models.networks.sequence import SequenceTower
from service.models.networks.tower_outputs import TowerOutputs

Float32 = NDArray[np.float32]
N_ITEMS = 60


class RandomNetwork(NamedTuple):
    """A network, and the tables of its model."""

    network: Any
    tables: InputTables


def normal(*shape: int, seed: int = 0) -> Float32:
    return (0.3 * np.random.default_rng([seed, *shape]).normal(size=shape)).astype(np.float32)


def perceptron(*widths: int) -> Perceptron:
    return Perceptron([(normal(a, b), normal(b)) for a, b in pairwise(widths)])


def reading_tower() -> RandomNetwork:
    """Return a user tower that reads ratings and attributes, with a bias."""
    inputs = HistoryInputs(8, (0.0,), 0.5, RatingUnit(3.5, 1.1), HistoryWeights(window=50))
    outputs = TowerOutputs(8, 0.9, 0.8, has_bias=True)
    tower = HistoryTower(inputs, (3, 4), normal(7, 4), perceptron(inputs.n_numbers + 4, 16, 9), outputs)
    return RandomNetwork(tower, InputTables(normal(N_ITEMS, inputs.n_columns), normal(N_ITEMS), 3.0))


def choosing_tower() -> RandomNetwork:
    """Return a user tower that reads what was chosen alone, with two half-lives, whose factors have one length."""
    inputs = HistoryInputs(8, (2.0, 0.0), 1.0, None, HistoryWeights(window=50))
    outputs = TowerOutputs(8, normalise=True)
    tower = HistoryTower(inputs, (), normal(0, 4), perceptron(inputs.n_numbers + 4, 16, 8), outputs)
    return RandomNetwork(tower, InputTables(normal(N_ITEMS, inputs.n_columns), normal(N_ITEMS), 0.0))


def category_tower() -> RandomNetwork:
    """Return an item tower over categories."""
    tower = CategoryTower(normal(12, 6), perceptron(6, 8, 5), TowerOutputs(5))
    return RandomNetwork(tower, InputTables(normal(N_ITEMS, 5), normal(N_ITEMS), 0.0))


def sequence_tower() -> RandomNetwork:
    """Return a causal transformer of two gated blocks."""
    width, window = 8, 50
    inner = 2 * width
    layers = {
        "query_key_value": (3 * width, width),
        "out": (width, width),
        "up": (2 * inner, width),
        "down": (width, inner),
        "gate_attention": (width, width),
        "gate_forward": (width, width),
    }
    tensors = {"norm.weight": 1 + normal(width), "norm.bias": normal(width, seed=1)}
    for block in range(2):
        named = {f"{name}.weight": normal(*shape, seed=block) for name, shape in layers.items()}
        named |= {f"{name}.bias": normal(shape[0], seed=block) for name, shape in layers.items()}
        for name in ("norm_attention", "norm_forward"):
            named |= {f"{name}.weight": 1 + normal(width, seed=block), f"{name}.bias": normal(width, seed=block + 2)}
        named["distance"] = normal(2, window, seed=block)
        tensors |= {f"blocks.{block}.{name}": tensor for name, tensor in named.items()}
    tower = SequenceTower.of(tensors, {"n_blocks": 2, "n_heads": 2})
    return RandomNetwork(tower, InputTables(3 * normal(N_ITEMS, width), normal(N_ITEMS), 0.0))


def pair_ranker() -> RandomNetwork:
    """Return a ranker with one hidden layer."""
    k, h = 6, 8
    tensors = {
        "products": normal(k),
        "of_users": normal(k, h),
        "of_items": normal(k, h, seed=1),
        "of_products": normal(k, h, seed=2),
        "bias": normal(h),
        "weight_1": normal(h, 1),
        "bias_1": normal(1),
    }
    ranker = PairRanker.of(tensors, {"activation": "elu", "n_candidates": 10, "offset": 0.3})
    return RandomNetwork(ranker, InputTables(normal(N_ITEMS, k), normal(N_ITEMS), 0.0))


ALL: dict[str, Callable[[], RandomNetwork]] = {
    "reading_tower": reading_tower,
    "choosing_tower": choosing_tower,
    "category_tower": category_tower,
    "sequence_tower": sequence_tower,
    "pair_ranker": pair_ranker,
}
