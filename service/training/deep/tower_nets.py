"""The user tower and the item tower in PyTorch, and as they are served.

`HistoryNet` is `HistoryTower`, and `ItemNet` is `CategoryTower` with a vector for each trained item besides. For a
share of the items of each batch this vector is left out, so that the tower learns what the categories alone say of an
item, as it will have to of a new one (Volkovs, Yu and Poutanen, "DropoutNet: Addressing cold start in recommender
systems", NIPS 2017); attributes of users are made unknown in the same way.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from service.models.networks.category_tower import CategoryTower
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.history_tower import HistoryTower
from service.models.networks.perceptron import Perceptron
from service.models.networks.tower_outputs import TowerOutputs
from service.training.deep.history_batch import HistoryBatch
from service.training.deep.item_batch import ItemBatch
from service.training.interactions import Float32

_FIRST_DEVIATION = 0.1


def embeddings(n: int, width: int) -> nn.Parameter:
    """Return the first vectors of n things, float32 (n, width)."""
    return nn.Parameter(torch.randn(n, width) * _FIRST_DEVIATION)


def layers(n_inputs: int, units: Sequence[int], n_outputs: int, dropout: float) -> nn.Sequential:
    """Return hidden layers of some units with rectifiers, and a last layer without."""
    found: list[nn.Module] = []
    for n_units in units:
        found += [nn.Linear(n_inputs, n_units), nn.ReLU()]
        if dropout:
            found.append(nn.Dropout(dropout))
        n_inputs = n_units
    return nn.Sequential(*found, nn.Linear(n_inputs, n_outputs))


class HistoryNet(nn.Module):
    """A user tower over a history.

    Args:
        inputs: How histories become numbers.
        n_items: The items, each with embeddings as an input.
        sizes: The categories of each column of the user's attributes.
        units: Of the hidden layers.
        n_outputs: Of the last layer.
        dropout: The share of hidden units that are left out in training.
        unknown_share: The share of attributes that are made unknown in training.
    """

    def __init__(
        self,
        inputs: HistoryInputs,
        n_items: int,
        sizes: tuple[int, ...],
        units: Sequence[int],
        n_outputs: int,
        *,
        dropout: float = 0.0,
        unknown_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.sizes = sizes
        self.unknown_share = unknown_share
        self.chosen = embeddings(n_items, inputs.width)
        self.rated = None if inputs.unit is None else embeddings(n_items, inputs.width)
        n_attributes = inputs.width if sizes else 0
        self.attributes = embeddings(sum(sizes), n_attributes)
        starts = np.cumsum((0, *sizes), dtype=np.int64)[:-1]
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        self.perceptron = layers(inputs.n_numbers + n_attributes, units, n_outputs, dropout)

    def forward(self, batch: HistoryBatch) -> torch.Tensor:
        """Return the outputs of b users, float32 (b, n_outputs)."""
        n_sums = len(self.inputs.half_lives)
        parts = [_sums(self.chosen, batch, signals) for signals in batch.signals[:n_sums]]
        if self.rated is not None:
            parts.append(_sums(self.rated, batch, batch.signals[n_sums]))
        parts.append(batch.figures)
        if self.sizes:
            categories = batch.attributes
            if self.training and self.unknown_share:
                shape, device = categories.shape, categories.device
                categories = categories * (torch.rand(shape, device=device) >= self.unknown_share)
            parts.append(self.attributes[categories + self.starts].sum(dim=1))
        outputs: torch.Tensor = self.perceptron(torch.cat(parts, dim=1))
        return outputs

    def input_factors(self, item_means: Float32 | None = None) -> Float32:
        """Return the embeddings of items as a model publishes them, float32 (n_items, c).

        Args:
            item_means: Float32 (n_items,), above which ratings were learnt; None if they are not read.
        """
        parts = [_numpy(self.chosen)]
        if self.rated is not None and item_means is not None:
            parts += [_numpy(self.rated), item_means[:, np.newaxis]]
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    def served(self, outputs: TowerOutputs) -> HistoryTower:
        """Return the tower as it is published."""
        return HistoryTower(self.inputs, self.sizes, _numpy(self.attributes), _perceptron(self.perceptron), outputs)


class ItemNet(nn.Module):
    """An item tower.

    Args:
        n_items: The trained items.
        n_categories: The categories of items.
        width: Of the vectors of items and categories.
        units: Of the hidden layers.
        n_outputs: Of the last layer.
        dropout: The share of hidden units that are left out in training.
        unknown_share: The share of items whose own vector is left out in training.
        first_biases: Float32 (n_items,), the first biases of items, if the last output is one; None if not.
    """

    def __init__(
        self,
        n_items: int,
        n_categories: int,
        width: int,
        units: Sequence[int],
        n_outputs: int,
        *,
        dropout: float = 0.0,
        unknown_share: float = 0.0,
        first_biases: Float32 | None = None,
    ) -> None:
        super().__init__()
        self.unknown_share = unknown_share
        self.own = embeddings(n_items, width)
        self.categories = embeddings(n_categories, width)
        self.perceptron = layers(width, units, n_outputs, dropout)
        self.biases = None if first_biases is None else nn.Parameter(torch.from_numpy(first_biases.copy()))

    def forward(self, batch: ItemBatch) -> torch.Tensor:
        """Return the outputs of q items, float32 (q, n_outputs)."""
        means = nn.functional.embedding_bag(batch.categories, self.categories, batch.offsets, mode="mean")
        own = self.own[batch.rows]
        biases = None if self.biases is None else self.biases[batch.rows]
        if self.training and self.unknown_share:
            kept = torch.rand(len(batch.rows), device=own.device) >= self.unknown_share
            own = own * kept[:, None]
            biases = None if biases is None else biases * kept
        outputs: torch.Tensor = self.perceptron(own + means)
        if biases is not None:
            outputs = torch.cat([outputs[:, :-1], outputs[:, -1:] + biases[:, None]], dim=1)
        return outputs

    def served(self, outputs: TowerOutputs) -> CategoryTower:
        """Return the tower for items without a vector of their own, as it is published."""
        return CategoryTower(_numpy(self.categories), _perceptron(self.perceptron), outputs)


def _sums(table: torch.Tensor, batch: HistoryBatch, signals: torch.Tensor) -> torch.Tensor:
    """Return the sum over each user's items of their embeddings times signals, float32 (n,): float32 (b, d)."""
    sums: torch.Tensor = nn.functional.embedding_bag(
        batch.items, table, batch.offsets, mode="sum", per_sample_weights=signals.to(table.dtype)
    )
    return sums


def _perceptron(network: nn.Sequential) -> Perceptron:
    """Return layers as they are published."""
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return Perceptron([(_numpy(layer.weight).T, _numpy(layer.bias)) for layer in linear])


def _numpy(tensor: Any) -> Float32:
    numbers: Float32 = np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
    return numbers
