"""One block of a causal transformer, in numpy: attention and a feed-forward layer, each behind a normalisation.

Of a gated block (LiGR) each of the two is multiplied by a sigmoid of what it is added to, and the feed-forward layer is
SwiGLU (N. Shazeer, "GLU variants improve transformer", 2020). Of a plain block (SASRec, pre-norm) nothing is
multiplied, and the feed-forward layer has ReLU.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.networks.network import Tensors

Float32 = NDArray[np.float32]
# As in PyTorch.
_EPSILON: Final = np.float32(1e-5)
_PLAIN: Final = frozenset(
    (
        *("norm_attention.weight", "norm_attention.bias", "norm_forward.weight", "norm_forward.bias"),
        *("query_key_value.weight", "query_key_value.bias", "out.weight", "out.bias"),
        *("up.weight", "up.bias", "down.weight", "down.bias", "distance"),
    )
)
_GATES: Final = frozenset(("gate_attention.weight", "gate_attention.bias", "gate_forward.weight", "gate_forward.bias"))


class TransformerBlock:
    """A block of a width d over at most `window` positions.

    Args:
        tensors: Float32 by name. Weights of layers are (outputs, inputs), as in PyTorch; `distance` is
            (n_heads, window), the bias of the attention to what is so many positions earlier.
        width: d.
        n_heads: The heads of the attention, each of width d / n_heads.

    Raises:
        ModelRefused: The tensors are not those of a block, or do not fit each other.
    """

    def __init__(self, tensors: Tensors, width: int, n_heads: int) -> None:
        self.tensors = dict(tensors)
        self.n_heads = n_heads
        self._is_gated = tensors.keys() == _PLAIN | _GATES
        if not self._is_gated and tensors.keys() != _PLAIN:
            raise ModelRefused(f"A block of the transformer has the tensors {', '.join(sorted(tensors)) or 'of none'}.")
        _check_shapes(self.tensors, width, n_heads, is_gated=self._is_gated)
        self._head_width = width // n_heads
        self._scale = np.float32(self._head_width**-0.5)
        self._biases = [_by_distance(row) for row in tensors["distance"]]

    @property
    def window(self) -> int:
        """The most positions."""
        return int(self.tensors["distance"].shape[1])

    def all(self, states: Float32) -> Float32:
        """Compute all positions: float32 (m, d), from float32 (m, d), oldest first."""
        return self._forward(states, states)

    def last(self, states: Float32) -> Float32:
        """Compute the last position alone: float32 (1, d), from float32 (m, d), oldest first."""
        return self._forward(states, states[-1:])

    def _forward(self, states: Float32, asked: Float32) -> Float32:
        """Compute the last of the positions, which are `asked`."""
        given = self.tensors
        added = self._linear(self._attention(states, asked.shape[0]), "out")
        if self._is_gated:
            added *= _sigmoid(self._linear(asked, "gate_attention"))
        asked = asked + added
        inner = layer_norm(asked, given["norm_forward.weight"], given["norm_forward.bias"])
        inner = self._linear(inner, "up")
        if not self._is_gated:
            return asked + self._linear(np.maximum(inner, 0, out=inner), "down")
        half = inner.shape[1] // 2
        swish = inner[:, :half] * _sigmoid(inner[:, :half].copy())
        swish *= inner[:, half:]
        added = self._linear(swish, "down")
        added *= _sigmoid(self._linear(asked, "gate_forward"))
        return asked + added

    def _attention(self, states: Float32, n_asked: int) -> Float32:
        """Return what the last positions read of all up to their own: float32 (n_asked, d)."""
        given, width = self.tensors, states.shape[1]
        normed = layer_norm(states, given["norm_attention.weight"], given["norm_attention.bias"])
        weight, bias = given["query_key_value.weight"], given["query_key_value.bias"]
        queries = normed[-n_asked:] @ weight[:width].T
        queries += bias[:width]
        queries *= self._scale
        # For the last position alone, keys and values of all are computed.
        keys_values = normed @ weight[width:].T
        keys_values += bias[width:]
        found = np.empty((n_asked, width), dtype=np.float32)
        m = states.shape[0]
        for head in range(self.n_heads):
            own = slice(head * self._head_width, (head + 1) * self._head_width)
            scores = queries[:, own] @ keys_values[:, own].T
            scores += self._biases[head][m - n_asked : m, :m]
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
            found[:, own] = scores @ keys_values[:, width:][:, own]
        return found

    def _linear(self, inputs: Float32, layer: str) -> Float32:
        found: Float32 = inputs @ self.tensors[f"{layer}.weight"].T
        found += self.tensors[f"{layer}.bias"]
        return found


def layer_norm(states: Float32, weight: Float32, bias: Float32) -> Float32:
    """Normalise the rows of float32 (m, d) to mean 0 and variance 1, then scale and shift by float32 (d,)."""
    centred: Float32 = states - states.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", centred, centred)[:, None] / np.float32(states.shape[1])
    centred /= np.sqrt(variance + _EPSILON)
    centred *= weight
    centred += bias
    return centred


def _sigmoid(values: Float32) -> Float32:
    """Return the logistic function, computed in place; the clip keeps the exponential finite."""
    np.clip(values, -60, 60, out=values)
    np.negative(values, out=values)
    np.exp(values, out=values)
    values += 1
    return np.reciprocal(values, out=values)


def _by_distance(biases: Float32) -> Float32:
    """Return a view (window, window): at (i, j) the bias of the distance i - j, minus infinity for what comes later."""
    window = biases.size
    padded = np.concatenate([np.full(window - 1, -np.inf, np.float32), biases])
    step = padded.itemsize
    return np.lib.stride_tricks.as_strided(
        padded[window - 1 :], shape=(window, window), strides=(step, -step), writeable=False
    )


def _check_shapes(tensors: Tensors, width: int, n_heads: int, *, is_gated: bool) -> None:
    inner = tensors["down.weight"].shape[-1] if tensors["down.weight"].ndim else 0
    layers = {
        "query_key_value": (3 * width, width),
        "out": (width, width),
        "up": ((2 if is_gated else 1) * inner, width),
        "down": (width, inner),
    }
    if is_gated:
        layers |= {"gate_attention": (width, width), "gate_forward": (width, width)}
    expected: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in layers.items():
        expected |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for name in ("norm_attention", "norm_forward"):
        expected |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ModelRefused(f"The transformer's {name} has the shape {tensors[name].shape}, not {shape}.")
    distance = tensors["distance"]
    if distance.ndim != 2 or distance.shape[0] != n_heads or not distance.shape[1] or width % n_heads:
        raise ModelRefused(f"The transformer's {n_heads} heads do not fit its width {width} or its distances.")
