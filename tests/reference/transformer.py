"""A causal transformer, position by position and head by head, in float64."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def user(tensors: Mapping[str, NDArray[Any]], inputs: NDArray[Any], n_blocks: int, n_heads: int) -> Float64:
    """Return the vector after the last of the items, whose inputs are (m, d), oldest first."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    states = [row.astype(np.float64) for row in inputs]
    for number in range(n_blocks):
        prefix = f"blocks.{number}."
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        states = [_block(own, states[: place + 1], n_heads) for place in range(len(states))]
    return _norm(states[-1], weights["norm.weight"], weights["norm.bias"])


def _block(own: Mapping[str, Float64], states: list[Float64], n_heads: int) -> Float64:
    """Return the last position of a block."""
    state = states[-1]
    width = state.size // n_heads
    normed = [_norm(one, own["norm_attention.weight"], own["norm_attention.bias"]) for one in states]
    heads = [_linear(own, "query_key_value", one).reshape(3, n_heads, width) for one in normed]
    read = []
    for head in range(n_heads):
        query = heads[-1][0, head]
        exponents = []
        for place, one in enumerate(heads):
            distance = len(heads) - 1 - place
            exponents.append(float(query @ one[1, head]) / math.sqrt(width) + own["distance"][head, distance])
        shares = [math.exp(exponent) for exponent in exponents]
        read.append(sum(share * one[2, head] for share, one in zip(shares, heads, strict=True)) / sum(shares))
    attention = _linear(own, "out", np.concatenate(read))
    gated = "gate_attention.weight" in own
    state = state + (attention * _sigmoid(_linear(own, "gate_attention", state)) if gated else attention)
    inner = _linear(own, "up", _norm(state, own["norm_forward.weight"], own["norm_forward.bias"]))
    if not gated:
        return state + _linear(own, "down", np.maximum(inner, 0))
    swish, linear = np.split(inner, 2)
    forward = _linear(own, "down", swish * _sigmoid(swish) * linear)
    found: Float64 = state + forward * _sigmoid(_linear(own, "gate_forward", state))
    return found


def _linear(own: Mapping[str, Float64], layer: str, state: Float64) -> Float64:
    found: Float64 = own[f"{layer}.weight"] @ state + own[f"{layer}.bias"]
    return found


def _norm(state: Float64, weight: Float64, bias: Float64) -> Float64:
    centred = state - state.mean()
    found: Float64 = centred / math.sqrt(float(np.square(centred).mean()) + 1e-5) * weight + bias
    return found


def _sigmoid(values: Float64) -> Float64:
    found: Float64 = 1 / (1 + np.exp(-values))
    return found
