"""The ONNX form of a user tower that reads interactions in their order.

Input: `history`, int64 (n,), the item rows of the latest interactions within the window, at least one, oldest first,
without dismissals. Output: `factors`, float32 (d,).
"""

import numpy as np
import torch
from torch import nn

from service.models.history.user_history import RATING, UserHistory
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.sequence import SequenceTower
from service.training.deep.onnx.form import Named, OnnxForm
from service.training.networks.transformer import Transformer


class _LatestUser(nn.Module):
    """The user after the latest interaction."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        user: torch.Tensor = self.network(history[None])[0, -1]
        return user


def form(network: SequenceTower, tables: InputTables) -> OnnxForm:
    """Return the form of a tower."""
    n_items = len(tables.input_factors)
    module = _transformer(network, tables)

    def example(rng: np.random.Generator, length: int) -> Named:
        return {"history": rng.integers(0, n_items, min(length, module.window))}

    def in_numpy(given: Named) -> Named:
        rows = given["history"].astype(np.int32)
        history = UserHistory(rows, np.ones(rows.size, np.float32), np.full(rows.size, RATING, np.uint8), None)
        return {"factors": network.user(UserInput(history, np.zeros(0, np.int32)), tables).factors}

    return OnnxForm(_LatestUser(module), ("factors",), {"history": {0: "n"}}, example, in_numpy)


def _transformer(network: SequenceTower, tables: InputTables) -> Transformer:
    """Return the network as PyTorch module, with the items' embeddings."""
    tensors, settings = network.tensors(), network.settings()
    n_items, width = tables.input_factors.shape
    window = tensors["blocks.0.distance"].shape[1]
    is_gated = "blocks.0.gate_forward.weight" in tensors
    module = Transformer(n_items, width, settings["n_blocks"], settings["n_heads"], window, 0.0, is_gated=is_gated)
    items = torch.zeros(n_items + 1, width)
    items[:-1] = torch.from_numpy(np.array(tables.input_factors, dtype=np.float32))
    state = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()} | {"items.weight": items}
    module.load_state_dict(state)
    return module
