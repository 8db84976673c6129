"""Weights of small transformers, drawn at random."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]


def tensors(
    rng: np.random.Generator, *, width: int, n_blocks: int, n_heads: int, window: int, gated: bool, inner: int = 5
) -> Tensors:
    """Return the weights of a `SequenceTower`."""
    found: Tensors = {}

    def norm(name: str) -> None:
        found[f"{name}.weight"] = rng.normal(1, 0.3, width).astype(np.float32)
        found[f"{name}.bias"] = rng.normal(0, 0.3, width).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> None:
        found[f"{name}.weight"] = rng.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        found[f"{name}.bias"] = rng.normal(0, 0.3, outputs).astype(np.float32)

    for number in range(n_blocks):
        prefix = f"blocks.{number}."
        norm(f"{prefix}norm_attention")
        norm(f"{prefix}norm_forward")
        linear(f"{prefix}query_key_value", 3 * width, width)
        linear(f"{prefix}out", width, width)
        linear(f"{prefix}up", 2 * inner if gated else inner, width)
        linear(f"{prefix}down", width, inner)
        if gated:
            linear(f"{prefix}gate_attention", width, width)
            linear(f"{prefix}gate_forward", width, width)
        found[f"{prefix}distance"] = rng.normal(0, 1, (n_heads, window)).astype(np.float32)
    norm("norm")
    return found
