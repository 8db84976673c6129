"""A pair of trained towers as a model."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.networks.networks import Networks
from service.models.networks.tower_outputs import TowerOutputs
from service.models.snapshot import ModelSnapshot
from service.training.assembly import assemble
from service.training.data.features import DataFeatures
from service.training.deep.batches.items import item_batch
from service.training.deep.fit.training_loop import moved
from service.training.deep.towers.nets import HistoryNet, ItemNet
from service.training.deep.towers.users import with_tower_users
from service.training.interactions import Float32, Interactions

_ITEMS_AT_ONCE = 4096


class TwoTowerNet(torch.nn.Module):
    """A user tower and an item tower, trained together."""

    def __init__(self, users: HistoryNet, items: ItemNet) -> None:
        super().__init__()
        self.users = users
        self.items = items

    def share_item_vectors(self) -> None:
        """Give both towers the same vectors of items, so that items that follow each other get similar ones."""
        self.items.own = self.users.chosen


class TowerScales(NamedTuple):
    """How the outputs of both towers become factors, and where scores begin.

    Attributes:
        users: Of the user tower.
        items: Of the item tower.
        global_mean: In units of the rating scale; 0 for a model that ranks.
        item_means: Float32 (n_items,), above which ratings were learnt; None if they are not read.
    """

    users: TowerOutputs
    items: TowerOutputs
    global_mean: float = 0.0
    item_means: Float32 | None = None


def item_outputs(network: ItemNet, features: DataFeatures, device: torch.device) -> torch.Tensor:
    """Return the outputs of all items, float32 (n_items, n_outputs)."""
    n_items = features.items.indptr.size - 1
    parts = []
    for start in range(0, n_items, _ITEMS_AT_ONCE):
        rows = np.arange(start, min(start + _ITEMS_AT_ONCE, n_items))
        parts.append(network(moved(item_batch(features.items, rows), device)))
    return torch.cat(parts)


def as_model(
    data: Interactions,
    algorithm: str,
    config: Any,
    network: TwoTowerNet,
    features: DataFeatures,
    scales: TowerScales,
    is_known_item: NDArray[np.bool_],
    curve: tuple[dict[str, Any], ...],
) -> ModelSnapshot:
    """Return the model of trained towers.

    Args:
        data: What they were trained on.
        algorithm: Its name.
        config: Its hyperparameters.
        network: The towers, in evaluation mode.
        features: Of the data's users and items.
        scales: How outputs become factors.
        is_known_item: Bool (n_items,); items that are not known have no factors.
        curve: The learning curve.
    """
    device = network.users.chosen.device
    with torch.no_grad():
        outputs = item_outputs(network.items, features, device).cpu().numpy()
    item_factors, item_bias = scales.items.split(outputs)
    item_factors[~is_known_item], item_bias[~is_known_item] = 0, 0
    knows_items = features.encoder.n_item_categories > 1
    networks = Networks(
        network.users.served(scales.users),
        network.items.served(scales.items) if knows_items else None,
        features=features.encoder,
    )
    return with_tower_users(
        assemble(
            data,
            algorithm,
            config,
            user_factors=np.zeros((len(data.users), item_factors.shape[1]), np.float32),
            item_factors=item_factors,
            item_bias=item_bias,
            global_mean=scales.global_mean,
            input_factors=network.users.input_factors(scales.item_means),
            fold_in=FoldIn(NETWORK, network.users.inputs.weights),
            networks=networks,
            user_attributes=features.users if features.users.shape[1] else None,
            learning_curve=curve,
        )
    )
