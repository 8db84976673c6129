"""The ranker over pairs in PyTorch, and as it is served; `PairRanker` has the formula."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from service.models.networks.pair_ranker import PairRanker
from service.training.deep.group.row_draws import RowDropout
from service.training.interactions import Float32

_ACTIVATIONS = {"elu": nn.functional.elu, "relu": nn.functional.relu}


class PairNet(nn.Module):
    """A ranker over pairs of vectors.

    The last layer begins with zeros, so that the first logits are the products of factors alone.

    Args:
        n_factors: The numbers k of a vector.
        units: Of the hidden layers.
        activation: Of the hidden layers.
        products: Float32 (k,), the first weights of the products.
        reads_products: Whether the perceptron reads the products, too.
        dropout: The share of units of the hidden layers but the first that are left out in training.
        offset: The first offset of logits.
    """

    def __init__(
        self,
        n_factors: int,
        units: Sequence[int],
        activation: str,
        products: Float32,
        *,
        reads_products: bool = True,
        dropout: float = 0.0,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.products = nn.Parameter(torch.from_numpy(products.copy()))
        self.of_users = nn.Linear(n_factors, units[0])
        self.of_items = nn.Linear(n_factors, units[0], bias=False)
        self.of_products = nn.Linear(n_factors, units[0], bias=False) if reads_products else None
        self.further = nn.ModuleList(
            nn.Linear(before, after) for before, after in zip(units, (*units[1:], 1), strict=True)
        )
        self.dropout = RowDropout(dropout)
        self.offset = nn.Parameter(torch.tensor(float(offset)))
        last = self.further[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, users: torch.Tensor, items: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the logits of pairs, float32 (b, m).

        Args:
            users: Float32 (b, k).
            items: Float32 (q, k).
            places: Int64 (b, m), the places in `items` of each user's items.
        """
        products = users[:, None] * items[places]
        # Of an item that many pairs have, the layer is computed once.
        values = self.of_users(users)[:, None] + self.of_items(items)[places]
        if self.of_products is not None:
            values = values + self.of_products(products)
        activation = _ACTIVATIONS[self.activation]
        for number, layer in enumerate(self.further):
            values = activation(values)
            values = layer(self.dropout(values) if number else values)
        logits: torch.Tensor = values[..., 0] + products @ self.products + self.offset
        return logits

    def weaken(self, share: float) -> None:
        """Keep a share of what the logits add to the plain products."""
        last = self.further[-1]
        with torch.no_grad():
            self.products.sub_(1).mul_(share).add_(1)
            last.weight.mul_(share)
            last.bias.mul_(share)

    def served(self, n_candidates: int, offset: float = 0.0) -> PairRanker:
        """Return the ranker as it is published.

        Args:
            n_candidates: See `Ranker`.
            offset: Added to logits.
        """
        shape = (self.products.numel(), self.of_users.out_features)
        no_products = torch.zeros(shape)
        tensors = {
            "products": _numpy(self.products),
            "of_users": _numpy(self.of_users.weight.T),
            "of_items": _numpy(self.of_items.weight.T),
            "of_products": _numpy(no_products if self.of_products is None else self.of_products.weight.T),
            "bias": _numpy(self.of_users.bias),
        }
        for number, layer in enumerate(self.further, 1):
            tensors[f"weight_{number}"] = _numpy(layer.weight.T)
            tensors[f"bias_{number}"] = _numpy(layer.bias)
        return PairRanker(tensors, self.activation, n_candidates, float(self.offset.detach()) + offset)


def halving_units(n_factors: int) -> tuple[int, ...]:
    """Return the units of three hidden layers: at least as many as the numbers of both vectors, then half, and half."""
    first = 1 << math.ceil(math.log2(2 * n_factors))
    return first, first // 2, max(1, first // 4)


def _numpy(tensor: Any) -> Float32:
    numbers: Float32 = np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
    return numbers
