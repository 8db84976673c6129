"""The ONNX form of a ranker over pairs.

Inputs: `user`, float32 (k,), the factors of the user; `items`, float32 (m, k), those of the candidates. Output:
`scores`, float32 (m,), between 0 and 1.
"""

from typing import Final

import numpy as np
import torch
from torch import nn

from service.models.networks.inputs import InputTables
from service.models.networks.pair_ranker import PairRanker
from service.training.deep.onnx.form import Named, OnnxForm

_ACTIVATIONS: Final = {"elu": torch.nn.functional.elu, "relu": torch.relu}


class _PairModule(nn.Module):
    def __init__(self, ranker: PairRanker) -> None:
        super().__init__()
        settings, tensors = ranker.settings(), ranker.tensors()
        self.offset = settings["offset"]
        self.activation = _ACTIVATIONS[settings["activation"]]
        self.n_layers = sum(name.startswith("weight_") for name in tensors)
        for name, tensor in tensors.items():
            self.register_buffer(name, torch.from_numpy(tensor.copy()))

    def forward(self, user: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        products = items * user
        values = user @ self.of_users + items @ self.of_items + products @ self.of_products + self.bias
        for number in range(1, self.n_layers + 1):
            values = self.activation(values) @ getattr(self, f"weight_{number}") + getattr(self, f"bias_{number}")
        return torch.sigmoid(values[:, 0] + products @ self.products + self.offset)


def form(network: PairRanker, tables: InputTables) -> OnnxForm:
    """Return the form of a ranker."""
    del tables
    k = network.tensors()["products"].size

    def example(rng: np.random.Generator, length: int) -> Named:
        return {
            "user": rng.normal(size=k).astype(np.float32),
            "items": rng.normal(size=(length, k)).astype(np.float32),
        }

    def in_numpy(given: Named) -> Named:
        return {"scores": network.scores(given["user"], given["items"])}

    return OnnxForm(_PairModule(network), ("scores",), {"items": {0: "m"}}, example, in_numpy)
