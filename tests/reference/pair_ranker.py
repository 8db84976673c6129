"""Reference of the ranker over pairs: one pair at a time, in plain Python, by the formula of its docstring."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def score(
    tensors: Mapping[str, NDArray[np.float32]],
    activation: str,
    offset: float,
    user: Sequence[float],
    item: Sequence[float],
) -> float:
    """Return the score of one item for one user."""
    k = len(user)
    products = [user[f] * item[f] for f in range(k)]
    values = [
        float(tensors["bias"][unit])
        + sum(
            user[f] * float(tensors["of_users"][f, unit])
            + item[f] * float(tensors["of_items"][f, unit])
            + products[f] * float(tensors["of_products"][f, unit])
            for f in range(k)
        )
        for unit in range(len(tensors["bias"]))
    ]
    number = 1
    while f"weight_{number}" in tensors:
        weight, bias = tensors[f"weight_{number}"], tensors[f"bias_{number}"]
        inputs = [_activated(value, activation) for value in values]
        values = [
            float(bias[unit]) + sum(value * float(weight[place, unit]) for place, value in enumerate(inputs))
            for unit in range(len(bias))
        ]
        number += 1
    logit = offset + sum(float(tensors["products"][f]) * products[f] for f in range(k)) + values[0]
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _activated(value: float, activation: str) -> float:
    if value > 0:
        return value
    return math.expm1(value) if activation == "elu" else 0.0
