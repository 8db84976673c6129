"""Towers with a ranker: their validation by lists in two steps, and the model that they become."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from service.models.snapshot import ModelSnapshot
from service.training.deep.fit.training_loop import Validation
from service.training.deep.next_item.task import NextTask
from service.training.deep.next_item.validation import LENGTH
from service.training.deep.towers.lists import listed_factors
from service.training.deep.towers.model import TowerScales, TwoTowerNet, as_model
from service.training.deep.towers.nets import HistoryNet, ItemNet
from service.training.deep.towers.pair_net import PairNet
from service.training.deep.towers.ranker_share import SHARES, RankerShare, best_share, compare
from service.training.interactions import Float32, Float64, Int64, Interactions


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

    def validation(self, task: NextTask, scales: TowerScales, config: Any, device: torch.device) -> Validation | None:
        """Return the validation by the lists that the model makes; None if the data is too small.

        If the share of the ranker is not set, the value is the better one of lists with the whole ranker and without.

        Args:
            task: With the hidden interactions.
            scales: How outputs become factors.
            config: A `RankerConfig` with `n_candidates`, how many items the ranker orders.
            device: Where the network is.
        """
        if not task.judged.size:
            return None
        shares = (0.0, 1.0) if config.ranker_share is None else (config.ranker_share,)

        def value() -> float:
            gains = self._gains(shares, task, scales, config.n_candidates, device)
            return max(float(of_share.mean()) for of_share in gains.values())

        return Validation(f"ndcg@{LENGTH}", value)

    def keep_share(self, task: NextTask, scales: TowerScales, config: Any, device: torch.device) -> RankerShare:
        """Keep a share of the ranker's difference to plain products: that of the config, or the best one.

        A ranker that learns from few interactions exaggerates: a part of its difference is then better than all of it.

        Args:
            task: With the hidden interactions.
            scales: How outputs become factors.
            config: See `validation`.
            device: Where the network is.
        """
        wanted = config.ranker_share
        if not task.judged.size:
            kept = RankerShare(wanted or 0.0)
        elif wanted:
            kept = compare(wanted, self._gains((0.0, wanted), task, scales, config.n_candidates, device))
        else:
            kept = best_share(self._gains(SHARES, task, scales, config.n_candidates, device))
            if wanted is not None:
                # The share is 0, as it was set or as an earlier fit chose it; the gain of the best share is recorded.
                kept = kept._replace(share=wanted)
        self.ranker.weaken(kept.share)
        return kept

    @torch.no_grad()
    def _gains(
        self, shares: Sequence[float], task: NextTask, scales: TowerScales, n_candidates: int, device: torch.device
    ) -> dict[float, Float64]:
        """Return, by share of the ranker, the gain of each hidden interaction in the lists."""
        users, items = listed_factors(self, task, scales, device)
        gains = {}
        for share in shares:
            if not share:
                gains[share] = task.validation.gains(users, items)
                continue
            weakened = copy.deepcopy(self.ranker)
            weakened.weaken(share)
            rank = partial(_scores, weakened, torch.from_numpy(items).to(device))
            gains[share] = task.validation.ranked_gains(users, items, n_candidates, rank)
        return gains


def ranked_model(
    data: Interactions,
    algorithm: str,
    config: Any,
    network: RankedTowers,
    task: NextTask,
    scales: TowerScales,
    curve: tuple[dict[str, Any], ...],
    kept: RankerShare,
    *,
    offset: float = 0.0,
) -> ModelSnapshot:
    """Return the model of trained towers with their ranker, or without it if its share is 0.

    The settings have the share, the kept epoch of the learning curve its gain.

    Args:
        config: A `RankerConfig` with `n_candidates`, how many items the ranker orders.
        kept: The share of the ranker that is in the network.
        offset: Added to the logits of the ranker.
    """
    config = replace(config, ranker_share=kept.share)
    curve = tuple(point | kept.as_json() if point["kept"] else point for point in curve)
    model = as_model(data, algorithm, config, network, task.features, scales, task.is_known, curve)
    if model.networks is None:
        raise AssertionError("A model of towers has networks.")
    if not kept.share:
        return model
    ranker = network.ranker.served(config.n_candidates, offset)
    return replace(model, networks=replace(model.networks, ranker=ranker))


def _scores(ranker: PairNet, items: torch.Tensor, users: Float32, candidates: Int64) -> Float32:
    """Return the logits of candidates, see `RankCandidates`."""
    logits = ranker(torch.from_numpy(users).to(items.device), items, torch.from_numpy(candidates).to(items.device))
    scores: Float32 = logits.float().cpu().numpy()
    return scores
