"""The ONNX form of an item tower over categories.

Input: `categories`, int64 (n,), those of one item, at least one; 0 for an unknown one. Outputs: `factors`, float32
(k,), and `bias`, float32 ().
"""

import numpy as np
import torch
from torch import nn

from service.models.features.item_features import ItemFeatures
from service.models.networks.category_tower import CategoryTower
from service.models.networks.inputs import InputTables
from service.training.deep.onnx.form import Named, OnnxForm
from service.training.deep.onnx.layers import Layers, split


class _CategoryModule(nn.Module):
    def __init__(self, tower: CategoryTower) -> None:
        super().__init__()
        tensors = tower.tensors()
        self.outputs = tower.outputs
        self.layers = Layers(tensors)
        self.register_buffer("vectors", torch.from_numpy(tensors["categories"].copy()))

    def forward(self, categories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        is_known = (categories >= 0) & (categories < self.vectors.shape[0])
        known = torch.where(is_known, categories, torch.zeros_like(categories))
        return split(self.layers(self.vectors[known].mean(dim=0)), self.outputs)


def form(network: CategoryTower, tables: InputTables) -> OnnxForm:
    """Return the form of a tower."""
    del tables
    n_categories = len(network.tensors()["categories"])

    def example(rng: np.random.Generator, length: int) -> Named:
        return {"categories": np.sort(rng.choice(n_categories, min(length, n_categories), replace=False))}

    def in_numpy(given: Named) -> Named:
        ids = given["categories"].astype(np.int32)
        factors, biases = network.items(ItemFeatures(np.array([0, ids.size]), ids))
        return {"factors": factors[0], "bias": biases[0]}

    axes = {"categories": {0: "n"}}
    return OnnxForm(_CategoryModule(network), ("factors", "bias"), axes, example, in_numpy)
