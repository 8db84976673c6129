"""The lists of two towers on the hidden interactions of a task, while they are trained."""

import torch

from service.training.deep.fit.training_loop import Validation, moved
from service.training.deep.next_item.task import NextTask
from service.training.deep.next_item.validation import LENGTH
from service.training.deep.towers.model import TowerScales, TwoTowerNet, item_outputs
from service.training.interactions import Float32


def list_validation(
    network: TwoTowerNet, task: NextTask, scales: TowerScales, device: torch.device
) -> Validation | None:
    """Return the validation by the largest products of factors; None if the data is too small.

    Args:
        network: The towers.
        task: With the hidden interactions.
        scales: How outputs become factors.
        device: Where the network is.
    """
    if not task.judged.size:
        return None

    def value() -> float:
        return float(task.validation.gains(*listed_factors(network, task, scales, device)).mean())

    return Validation(f"ndcg@{LENGTH}", value)


def listed_factors(
    network: TwoTowerNet, task: NextTask, scales: TowerScales, device: torch.device
) -> tuple[Float32, Float32]:
    """Return the factors of the users before the hidden interactions, float32 (m, k), and of all items, (n_items, k).

    Args:
        network: The towers, in evaluation mode.
        task: With the hidden interactions.
        scales: How outputs become factors.
        device: Where the network is.
    """
    histories = task.batches.in_order(task.judged)
    users = torch.cat([network.users(moved(each, device)) for each in histories])
    items = item_outputs(network.items, task.features, device)
    of_users, _ = scales.users.split(users.detach().float().cpu().numpy())
    of_items, _ = scales.items.split(items.detach().float().cpu().numpy())
    return of_users, of_items
