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

from service.models.features.feature_encoder import FeatureEncoder
from service.models.networks.category_tower import CategoryTower
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.history_tower import HistoryTower
from service.models.networks.perceptron import Perceptron
from service.models.networks.tower_outputs import TowerOutputs
from service.training.deep.batches.histories import HistoryBatch
from service.training.deep.batches.items import ItemBatch
from service.training.deep.group.gathered import gathered
from service.training.deep.group.row_draws import RowDropout, drawing_for, uniform
from service.training.deep.towers.config import TowerConfig
from service.training.interactions import Float32

# Of the numbers of first vectors.
_FIRST_DEVIATION = 0.1


def embeddings(n: int, width: int) -> nn.Parameter:
    """Return the first vectors of n things, float32 (n, width)."""
    return nn.Parameter(torch.randn(n, width) * _FIRST_DEVIATION)


class Layers(nn.Module):
    """Hidden layers with rectifiers, a last layer without, and perhaps a linear map beside them.

    With the map a tower begins as that map, because the last layer begins with zeros: two towers over the same vectors
    of items then begin with the similarities of these, and learn what a map cannot say (He, Zhang, Ren and Sun, "Deep
    residual learning for image recognition", CVPR 2016).

    Args:
        n_inputs: Their number.
        units: Of the hidden layers.
        n_outputs: Of the last layer.
        dropout: The share of hidden units that are left out in training.
        first_map: Float32 (n_inputs, n_outputs), the linear map at first; None for none.
    """

    def __init__(
        self,
        n_inputs: int,
        units: Sequence[int],
        n_outputs: int,
        dropout: float,
        first_map: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        found: list[nn.Module] = []
        width = n_inputs
        for n_units in units:
            found += [nn.Linear(width, n_units), nn.ReLU()]
            if dropout:
                found.append(RowDropout(dropout))
            width = n_units
        self.hidden = nn.Sequential(*found)
        self.last = nn.Linear(width, n_outputs)
        self.map = None if first_map is None else nn.Parameter(first_map)
        if first_map is not None:
            nn.init.zeros_(self.last.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs, float32 (b, n_outputs), of inputs (b, n_inputs)."""
        outputs: torch.Tensor = self.last(self.hidden(inputs))
        return outputs if self.map is None else outputs + inputs @ self.map

    def served(self) -> Perceptron:
        """Return them as they are published.

        The map is passed through the rectifiers by units of its own, as it is and negated: x = relu(x) - relu(-x).
        """
        linear = [*(layer for layer in self.hidden if isinstance(layer, nn.Linear)), self.last]
        layers = [(_numpy(layer.weight).T, _numpy(layer.bias)) for layer in linear]
        if self.map is None:
            return Perceptron(layers)
        passed = np.concatenate([_numpy(self.map), -_numpy(self.map)], axis=1)
        n_passed = passed.shape[1]
        through = np.eye(n_passed, dtype=np.float32)
        back = np.concatenate([through[: n_passed // 2, : n_passed // 2], -through[: n_passed // 2, : n_passed // 2]])
        widened = []
        for number, (weight, bias) in enumerate(layers):
            if number == len(layers) - 1:
                widened.append((np.concatenate([weight, back]), bias))
                continue
            beside = passed if number == 0 else np.concatenate([np.zeros((weight.shape[0], n_passed)), through])
            above = weight if number == 0 else np.concatenate([weight, np.zeros((n_passed, weight.shape[1]))])
            biases = np.concatenate([bias, np.zeros(n_passed)]).astype(np.float32)
            widened.append((np.concatenate([above, beside], axis=1).astype(np.float32), biases))
        return Perceptron(widened)


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
        first_map: Float32 (d, n_outputs), the linear map of each sum at first; None for none.
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
        first_map: torch.Tensor | None = None,
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
        n_inputs = inputs.n_numbers + n_attributes
        whole_map = None
        if first_map is not None:
            n_sums = len(inputs.half_lives)
            whole_map = torch.zeros(n_inputs, n_outputs)
            whole_map[: n_sums * inputs.width] = first_map.repeat(n_sums, 1) / n_sums
        self.perceptron = Layers(n_inputs, units, n_outputs, dropout, whole_map)

    def forward(self, batch: HistoryBatch) -> torch.Tensor:
        """Return the outputs of b users, float32 (b, n_outputs)."""
        with drawing_for(batch.rows):
            return self._outputs(batch)

    def _outputs(self, batch: HistoryBatch) -> torch.Tensor:
        n_sums = len(self.inputs.half_lives)
        parts = [_sums(self.chosen, batch, signals) for signals in batch.signals[:n_sums]]
        if self.rated is not None:
            parts.append(_sums(self.rated, batch, batch.signals[n_sums]))
        parts.append(batch.figures)
        if self.sizes:
            categories = batch.attributes
            if self.training and self.unknown_share:
                categories = categories * (uniform(tuple(categories.shape), categories.device) >= self.unknown_share)
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
        return HistoryTower(self.inputs, self.sizes, _numpy(self.attributes), self.perceptron.served(), outputs)


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
        first_map: Float32 (width, n_outputs), the linear map at first; None for none.
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
        first_map: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.unknown_share = unknown_share
        self.own = embeddings(n_items, width)
        self.categories = embeddings(n_categories, width)
        self.perceptron = Layers(width, units, n_outputs, dropout, first_map)
        self.biases = None if first_biases is None else nn.Parameter(torch.from_numpy(first_biases.copy()))

    def forward(self, batch: ItemBatch) -> torch.Tensor:
        """Return the outputs of q items, float32 (q, n_outputs); of a part of a batch, those of the whole batch."""
        with drawing_for(batch.part):
            return gathered(self._own(batch), batch.part)

    def _own(self, batch: ItemBatch) -> torch.Tensor:
        means = nn.functional.embedding_bag(batch.categories, self.categories, batch.offsets, mode="mean")
        own = self.own[batch.rows]
        biases = None if self.biases is None else self.biases[batch.rows]
        if self.training and self.unknown_share:
            kept = uniform((len(batch.rows),), own.device) >= self.unknown_share
            own = own * kept[:, None]
            biases = None if biases is None else biases * kept
        outputs: torch.Tensor = self.perceptron(own + means)
        if biases is not None:
            outputs = torch.cat([outputs[:, :-1], outputs[:, -1:] + biases[:, None]], dim=1)
        return outputs

    def served(self, outputs: TowerOutputs) -> CategoryTower:
        """Return the tower for items without a vector of their own, as it is published."""
        return CategoryTower(_numpy(self.categories), self.perceptron.served(), outputs)


def _sums(table: torch.Tensor, batch: HistoryBatch, signals: torch.Tensor) -> torch.Tensor:
    """Return the sum over each user's items of their embeddings times signals, float32 (n,): float32 (b, d)."""
    sums: torch.Tensor = nn.functional.embedding_bag(
        batch.items, table, batch.offsets, mode="sum", per_sample_weights=signals.to(table.dtype)
    )
    return sums


def _numpy(tensor: Any) -> Float32:
    numbers: Float32 = np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
    return numbers


def towers_of_one_map(
    inputs: HistoryInputs, encoder: FeatureEncoder, n_items: int, config: TowerConfig
) -> tuple[HistoryNet, ItemNet]:
    """Return two towers that begin as the same linear map, which is drawn.

    Args:
        inputs: How histories become numbers.
        encoder: Of the attributes of users and items.
        n_items: The trained items.
        config: Their shape.
    """
    k = config.n_factors
    first_map = torch.randn(config.width, k) / config.width**0.5
    users = HistoryNet(
        *(inputs, n_items, encoder.user_sizes, config.units, k),
        dropout=config.dropout,
        unknown_share=config.unknown_share,
        first_map=first_map.clone(),
    )
    items = ItemNet(
        *(n_items, encoder.n_item_categories, config.width, config.units, k),
        dropout=config.dropout,
        unknown_share=config.unknown_share,
        first_map=first_map.clone(),
    )
    return users, items
