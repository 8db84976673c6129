"""The ONNX form of a user tower over a history.

Inputs: `history`, int64 (n,), item rows within the window, oldest first; `weights`, float32 (n,), those of
`service.models.history.weights`, 1 for a rating that is no dislike; `ratings`, float32 (n,), on the rating scale;
`attributes`, int64 (c,), a category of each column of users, 0 for an unknown one. Outputs: `factors`, float32 (k,),
and `bias`, float32 (), which is added to every score.
"""

import numpy as np
import torch
from torch import nn

from service.models.history.user_history import RATING, UserHistory
from service.models.networks.history_inputs import LOG_UNIT, MEAN_COUNT
from service.models.networks.history_tower import HistoryTower
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.rating_unit import GRID, LARGEST, RatingUnit
from service.training.deep.onnx.form import Named, OnnxForm
from service.training.deep.onnx.layers import Layers, split


class _HistoryModule(nn.Module):
    def __init__(self, tower: HistoryTower, tables: InputTables) -> None:
        super().__init__()
        tensors = tower.tensors()
        self.inputs = tower.inputs
        self.outputs = tower.outputs
        self.layers = Layers(tensors)
        sizes = np.array(tower.sizes, dtype=np.int64)
        half_lives = torch.tensor([[half_life or np.inf] for half_life in tower.inputs.half_lives])
        self.register_buffer("table", torch.from_numpy(np.array(tables.input_factors, dtype=np.float32)))
        self.register_buffer("half_lives", half_lives.to(torch.float64))
        self.register_buffer("vectors", torch.from_numpy(tensors["attributes"].copy()))
        self.register_buffer("limits", torch.from_numpy(sizes))
        self.register_buffer("starts", torch.from_numpy(np.cumsum(sizes) - sizes))

    def forward(
        self, history: torch.Tensor, weights: torch.Tensor, ratings: torch.Tensor, attributes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.table[history]
        width = self.inputs.width
        later = (history.shape[0] - 1 - torch.arange(history.shape[0])).to(torch.float64)
        signals = torch.exp2(-later / self.half_lives).to(torch.float32) * weights
        signals = signals * self._scales(signals.abs().sum(dim=1, keepdim=True))
        parts = [(signals @ rows[:, :width]).reshape(-1)]
        count = torch.ones_like(weights).sum()
        if self.inputs.unit is not None:
            residuals = _learnt(ratings, self.inputs.unit) - rows[:, 2 * width]
            parts.append((residuals * self._scales(count)) @ rows[:, width : 2 * width])
            divisor = count + float(MEAN_COUNT)
            parts += [(residuals.sum() / divisor).reshape(1), (residuals.square().sum() / divisor).reshape(1)]
        parts.append((torch.log1p(count) / LOG_UNIT).reshape(1))
        parts.append(self._of_attributes(attributes))
        return split(self.layers(torch.cat(parts)), self.outputs)

    def _of_attributes(self, attributes: torch.Tensor) -> torch.Tensor:
        if not self.limits.numel():
            return torch.zeros(self.vectors.shape[1])
        is_known = (attributes >= 0) & (attributes < self.limits)
        known = torch.where(is_known, attributes, torch.zeros_like(attributes))
        vectors: torch.Tensor = self.vectors[self.starts + known].sum(dim=0)
        return vectors

    def _scales(self, totals: torch.Tensor) -> torch.Tensor:
        scales: torch.Tensor = torch.where(totals > 0, totals, torch.ones_like(totals)) ** -self.inputs.exponent
        return scales


def _learnt(ratings: torch.Tensor, unit: RatingUnit) -> torch.Tensor:
    """Return what `RatingUnit.learnt` does."""
    values = torch.round((ratings.to(torch.float64) - unit.mean) * (GRID / unit.deviation)) * (1 / GRID)
    return values.clamp(-LARGEST, LARGEST).to(torch.float32)


def form(network: HistoryTower, tables: InputTables) -> OnnxForm:
    """Return the form of a tower."""
    n_items, unit = len(tables.input_factors), network.inputs.unit

    def history(given: Named) -> UserHistory:
        types = np.full(given["history"].size, RATING, dtype=np.uint8)
        return UserHistory(given["history"].astype(np.int32), given["ratings"], types, None)

    def example(rng: np.random.Generator, length: int) -> Named:
        length = min(length, network.inputs.window)
        mean, deviation = (3.0, 1.0) if unit is None else unit
        given: Named = {
            "history": rng.integers(0, n_items, length),
            "weights": np.zeros(length, np.float32),
            "ratings": rng.normal(mean, deviation, length).astype(np.float32),
            "attributes": np.array([rng.integers(0, size) for size in network.sizes], dtype=np.int64),
        }
        given["weights"] = network.inputs.weights.of(history(given)).astype(np.float32)
        return given

    def in_numpy(given: Named) -> Named:
        found = network.user(UserInput(history(given), given["attributes"].astype(np.int32)), tables)
        return {"factors": found.factors, "bias": np.array(found.bias)}

    axes = {name: {0: "n"} for name in ("history", "weights", "ratings")}
    return OnnxForm(_HistoryModule(network, tables), ("factors", "bias"), axes, example, in_numpy)
