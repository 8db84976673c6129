"""A user tower that reads the recent interactions in their order: a causal transformer, in numpy.

Sources: W.-C. Kang and J. McAuley, "Self-attentive sequential recommendation" (SASRec), ICDM 2018; gated blocks as in
F. Borisyuk et al., "From features to transformers: redefining ranking for scalable impact" (LiGR), 2025, and in
D. Tikhonovich et al., "eSASRec: enhancing transformer-based recommendations in a modular fashion", RecSys 2025; a
learnt bias of each distance, as in C. Raffel et al., "Exploring the limits of transfer learning" (T5), JMLR 21, 2020.

Invariant: a user is a function of the items and their order alone; what was dismissed is left out. Of the last block
the last position alone is computed, since it is the user.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.history.user_history import DISMISS
from service.models.networks.inputs import InputTables, TowerOutput, UserInput
from service.models.networks.network import Tensors
from service.models.networks.transformer_block import Float32, TransformerBlock, layer_norm

_FINAL: Final = ("norm.weight", "norm.bias")


class SequenceTower:
    """The user after the latest of their interactions.

    Args:
        blocks: The blocks, the first one on the items.
        weight: Float32 (d,), that of the final layer normalisation.
        bias: Float32 (d,), the same.
    """

    kind: ClassVar[str] = "sequence"
    is_slow: ClassVar[bool] = True

    def __init__(self, blocks: list[TransformerBlock], weight: Float32, bias: Float32) -> None:
        self._blocks = blocks
        self._weight = weight
        self._bias = bias

    def __repr__(self) -> str:
        return f"<SequenceTower {len(self._blocks)} blocks, {self._weight.size} factors>"

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights, by the names of the PyTorch module."""
        found: dict[str, NDArray[Any]] = {"norm.weight": self._weight, "norm.bias": self._bias}
        for number, block in enumerate(self._blocks):
            found |= {f"blocks.{number}.{name}": tensor for name, tensor in block.tensors.items()}
        return found

    def settings(self) -> dict[str, Any]:
        """Return the number of blocks and of their heads."""
        return {"n_blocks": len(self._blocks), "n_heads": self._blocks[0].n_heads}

    @classmethod
    def of(cls, tensors: Tensors, settings: Mapping[str, Any]) -> "SequenceTower":
        """Build it from `tensors()` and `settings()`.

        Raises:
            ModelRefused: A tensor or a setting is missing, does not fit the others, or is not finite.
        """
        n_blocks, n_heads = settings.get("n_blocks"), settings.get("n_heads")
        if not isinstance(n_blocks, int) or not isinstance(n_heads, int) or min(n_blocks, n_heads) < 1:
            raise ModelRefused("The transformer does not say how many blocks and heads it has.")
        for name, tensor in tensors.items():
            if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
                raise ModelRefused(f"The transformer's {name} is not finite float32.")
        if any(name not in tensors or tensors[name].ndim != 1 for name in _FINAL):
            raise ModelRefused("The transformer lacks its final normalisation.")
        weight, bias = (tensors[name] for name in _FINAL)
        if weight.shape != bias.shape:
            raise ModelRefused("The transformer's final normalisation has two widths.")
        blocks = []
        for number in range(n_blocks):
            prefix = f"blocks.{number}."
            own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            blocks.append(TransformerBlock(own, weight.size, n_heads))
        if len(tensors) != len(_FINAL) + sum(len(block.tensors) for block in blocks):
            raise ModelRefused("The transformer has tensors that belong to none of its blocks.")
        if len({block.window for block in blocks}) != 1:
            raise ModelRefused("The blocks of the transformer have different windows.")
        return cls(blocks, weight, bias)

    def user(self, given: UserInput, tables: InputTables) -> TowerOutput:
        """Compute a user from the last interactions within the window; zeros without any.

        Raises:
            ModelRefused: The items are of another width.
        """
        states = self._inputs(given, tables)
        if not states.size:
            return TowerOutput(np.zeros(self._weight.size, dtype=np.float32))
        *before, last = self._blocks
        for block in before:
            states = block.all(states)
        return TowerOutput(layer_norm(last.last(states), self._weight, self._bias)[0])

    def after_each(self, given: UserInput, tables: InputTables) -> Float32:
        """Compute a user after each interaction, float32 (m, d); a dismissal changes nothing.

        Raises:
            ModelRefused: The items are of another width.
        """
        found = np.zeros((given.history.rows.size, self._weight.size), dtype=np.float32)
        states = self._inputs(given, tables)
        if states.size:
            for block in self._blocks:
                states = block.all(states)
            is_read = given.history.types != DISMISS
            states = layer_norm(states, self._weight, self._bias)
            # The place among the read ones of the latest read one; those before the window have no part.
            n_read = np.cumsum(is_read) - (np.count_nonzero(is_read) - states.shape[0])
            found = np.concatenate([np.zeros((1, states.shape[1]), np.float32), states])[np.maximum(n_read, 0)]
        return found

    def _inputs(self, given: UserInput, tables: InputTables) -> Float32:
        """Return the inputs of the last items within the window, float32 (m, d)."""
        rows = given.history.rows[given.history.types != DISMISS][-self._blocks[0].window :]
        if tables.input_factors.shape[1] != self._weight.size:
            width = tables.input_factors.shape[1]
            raise ModelRefused(f"The items have {width} inputs, and the transformer {self._weight.size}.")
        found: Float32 = tables.input_factors.take(rows, axis=0)
        return found
