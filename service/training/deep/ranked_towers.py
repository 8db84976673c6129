"""Towers with a ranker: their validation by lists in two steps, and the model that they become."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch

from service.models.snapshot import ModelSnapshot
from service.training.deep.next_task import NextTask
from service.training.deep.next_validation import LENGTH
from service.training.deep.pair_net import PairNet
from service.training.deep.tower_nets import HistoryNet, ItemNet
from service.training.deep.trained_towers import TowerScales, TwoTowerNet, as_model, item_outputs
from service.training.deep.training_loop import Validation, moved
from service.training.interactions import Float32, Int64, Interactions

# Of a ranker's difference to plain products.
_SHARES: Final = (0.2, 0.35, 0.5, 0.7, 1.0)


class RankedTowers(TwoTowerNet):
    """A user tower, an item tower and a ranker of the factors of both, trained together."""

    def __init__(self, users: HistoryNet, items: ItemNet, ranker: PairNet) -> None:
        super().__init__(users, items)
        self.ranker = ranker
        for tower in (users, items):
            for layer in tower.perceptron.modules():
                if isinstance(layer, torch.nn.Linear):
                    # The first vectors of items are small. With biases they would all have nearly one direction.
                    torch.nn.init.zeros_(layer.bias)

    def share_item_vectors(self) -> None:
        """Let both towers have the same vectors of items: those that follow each other come to be alike."""
        self.items.own = self.users.chosen

    def validation(
        self, task: NextTask, scales: TowerScales, n_candidates: int, device: torch.device
    ) -> Validation | None:
        """Return the validation by the lists that the model makes; None if the data is too small.

        Args:
            task: With the hidden interactions.
            scales: How outputs become factors.
            n_candidates: How many items the ranker orders.
            device: Where the network is.
        """
        if not task.judged.size:
            return None
        return Validation(f"ndcg@{LENGTH}", lambda: self._ndcg(task, scales, n_candidates, device))

    def choose_share(self, task: NextTask, scales: TowerScales, n_candidates: int, device: torch.device) -> None:
        """Keep the share of the ranker's difference to plain products with which the validation is best.

        A ranker that learns from few interactions goes too far. Half of its way is then better than either end.
        """
        if not task.judged.size:
            return
        best, state = -1.0, {name: tensor.clone() for name, tensor in self.ranker.state_dict().items()}
        kept = state
        for share in _SHARES:
            self.ranker.load_state_dict(state)
            self.ranker.weaken(share)
            with torch.no_grad():
                value = self._ndcg(task, scales, n_candidates, device)
            if value > best:
                best, kept = value, {name: tensor.clone() for name, tensor in self.ranker.state_dict().items()}
        self.ranker.load_state_dict(kept)

    def _ndcg(self, task: NextTask, scales: TowerScales, n_candidates: int, device: torch.device) -> float:
        histories = task.batches.in_order(task.judged)
        users, _ = scales.users.split(_numpy(torch.cat([self.users(moved(each, device)) for each in histories])))
        items, _ = scales.items.split(_numpy(item_outputs(self.items, task.features, device)))
        of_items = torch.from_numpy(items).to(device)

        def rank(some: Float32, candidates: Int64) -> Float32:
            places = torch.from_numpy(candidates).to(device)
            return _numpy(self.ranker(torch.from_numpy(some).to(device), of_items, places))

        return task.validation.ranked_ndcg(users, items, n_candidates, rank)


def ranked_model(
    data: Interactions,
    algorithm: str,
    config: Any,
    network: RankedTowers,
    task: NextTask,
    scales: TowerScales,
    curve: tuple[dict[str, Any], ...],
    n_candidates: int,
    *,
    offset: float = 0.0,
) -> ModelSnapshot:
    """Return the model of trained towers with their ranker.

    Args:
        n_candidates: How many items the ranker orders.
        offset: Added to the logits of the ranker.
    """
    model = as_model(data, algorithm, config, network, task.features, scales, task.is_known, curve)
    if model.networks is None:
        raise AssertionError("A model of towers has networks.")
    return replace(model, networks=replace(model.networks, ranker=network.ranker.served(n_candidates, offset)))


def _numpy(tensor: torch.Tensor) -> Float32:
    numbers: Float32 = tensor.detach().float().cpu().numpy().astype(np.float32)
    return numbers
