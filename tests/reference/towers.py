"""Reference of the towers: one interaction, one unit at a time, in float64."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.models.features.item_features import ItemFeatures
from service.models.history.user_history import UserHistory
from service.models.networks.category_tower import CategoryTower
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.history_tower import HistoryTower
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.tower_outputs import TowerOutputs

Numbers = list[float]


def history_numbers(inputs: HistoryInputs, history: UserHistory, tables: InputTables) -> Numbers:
    """Return the input that a history becomes."""
    n, d = history.rows.size, inputs.width
    weights = inputs.weights.of(history).tolist()
    if not any(weights):
        return [0.0] * inputs.n_numbers
    found: Numbers = []
    for half_life in inputs.half_lives:
        decayed = [weights[j] * (0.5 ** ((n - 1 - j) / half_life) if half_life else 1.0) for j in range(n)]
        total = sum(map(abs, decayed))
        for f in range(d):
            numbers = (decayed[j] * float(tables.input_factors[history.rows[j], f]) for j in range(n))
            found.append(sum(numbers) / (total**inputs.exponent))
    if inputs.unit is not None:
        mean, deviation = inputs.unit
        residuals = [
            (float(history.values[j]) - mean) / deviation - float(tables.input_factors[history.rows[j], 2 * d])
            for j in range(n)
        ]
        for f in range(d, 2 * d):
            products = (residuals[j] * float(tables.input_factors[history.rows[j], f]) for j in range(n))
            found.append(sum(products) / n**inputs.exponent)
        found += [sum(residuals) / (n + 3), sum(r * r for r in residuals) / (n + 3)]
    return [*found, math.log(1 + n) / 5]


def user(tower: HistoryTower, given: UserInput, tables: InputTables) -> tuple[Numbers, float]:
    """Return the factors and the bias of a user of whom something is known."""
    tensors = tower.tensors()
    numbers = history_numbers(tower.inputs, given.history, tables)
    of_attributes = np.zeros(tensors["attributes"].shape[1])
    start = 0
    for size, category in zip(tower.sizes, given.attributes.tolist(), strict=True):
        of_attributes += tensors["attributes"][start + category]
        start += size
    return factors(tower.outputs, perceptron(tensors, [*numbers, *of_attributes.tolist()]))


def item(tower: CategoryTower, features: ItemFeatures, number: int) -> tuple[Numbers, float]:
    """Return the factors and the bias of an item."""
    tensors = tower.tensors()
    categories = features.ids[features.indptr[number] : features.indptr[number + 1]].tolist()
    mean = sum(tensors["categories"][category].astype(np.float64) for category in categories) / len(categories)
    return factors(tower.outputs, perceptron(tensors, np.asarray(mean).tolist()))


def perceptron(tensors: dict[str, NDArray[Any]], inputs: Sequence[float]) -> Numbers:
    """Return the outputs of the layers."""
    values = list(inputs)
    n_layers = sum(name.startswith("weight_") for name in tensors)
    for layer in range(n_layers):
        weight, bias = tensors[f"weight_{layer}"], tensors[f"bias_{layer}"]
        sums = [
            float(bias[unit]) + sum(value * float(weight[i, unit]) for i, value in enumerate(values))
            for unit in range(bias.size)
        ]
        values = sums if layer == n_layers - 1 else [max(0.0, value) for value in sums]
    return values


def factors(outputs: TowerOutputs, values: Numbers) -> tuple[Numbers, float]:
    """Return outputs as factors and a bias."""
    found, rest = values[: outputs.n_factors], values[outputs.n_factors :]
    length = math.sqrt(sum(value * value for value in found)) if outputs.normalise else 1.0
    return [outputs.scale * value / length for value in found], outputs.bias_scale * sum(rest)
