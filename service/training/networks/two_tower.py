"""Two towers that rank: which item a user chooses next, by a softmax over the items of a batch.

The score of an item is the cosine of the outputs of both towers over a temperature. The loss of a batch is the mean of

    -log( exp(s(u, i) - log q_i) / sum over items j of the batch of exp(s(u, j) - log q_j) )

where q_j is the probability that j is in a batch, without which popular items would be scored too low (Yi et al.,
"Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019). The sum leaves out items
that the user has chosen before. The user tower sees the user's latest items, weighted by several half-lives, and the
user's attributes; so a new event changes the user at once, and a user without a history is computed from attributes.
`two_tower_rating` describes the towers.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import torch

from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.tower_outputs import TowerOutputs
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.weighted_history import DEFAULT_HALF_LIFE, WeightedHistory
from service.training.deep.fit.data_parallel import DataParallelFit
from service.training.deep.fit.objective import Objective
from service.training.deep.fit.torch_run import torch_run
from service.training.deep.next_item.batches import EXCLUDED, NextBatch
from service.training.deep.next_item.task import NextTask, chosen_inputs
from service.training.deep.towers.config import TowerConfig
from service.training.deep.towers.lists import list_validation
from service.training.deep.towers.model import TowerScales, TwoTowerNet, as_model
from service.training.deep.towers.nets import towers_of_one_map
from service.training.interactions import Interactions, Progress

NAME: Final = "two_tower"
_LAST_RATE: Final = 0.02


@dataclass(frozen=True)
class TwoTowerConfig(TowerConfig, WeightedHistory):
    """Hyperparameters of two towers that rank."""

    n_epochs: Annotated[
        int,
        {"unit": "epochs", "least": 1, "most": 10_000},
        "The most passes over the interactions; fewer if the validation stops improving.",
    ] = 20
    patience: Annotated[
        int,
        {"unit": "epochs", "least": 0, "most": 10_000},
        "Epochs without a better validation after which training stops; 0 for never.",
    ] = 4
    batch_size: Annotated[
        int,
        {"unit": "interactions", "least": 1, "most": 1 << 20},
        "Interactions per step, whose items compete.",
    ] = 1024
    lr: Annotated[
        float,
        {"least": 1e-6, "most": 10, "search": (3e-4, 1e-2, "log")},
        "Adam's learning rate at first; it falls linearly to a fiftieth.",
    ] = 0.002
    half_life: Annotated[
        float | None,
        {"unit": "interactions", "least": 0, "most": 1e6, "search": (1, 200, "log")},
        "Later interactions after which one counts half, in the middle one of three sums; the others have a quarter "
        "and four times of it. 0 for one sum without decay; if none, 4 where the data has times, else 0.",
    ] = None
    window: Annotated[
        int, {"unit": "interactions", "least": 1, "most": 100_000}, "Latest interactions that are read."
    ] = 100
    temperature: Annotated[
        float,
        {"least": 0.01, "most": 100, "search": (0.03, 0.3, "log")},
        "Divisor of cosines; a lower one emphasises close competitors.",
    ] = 0.1
    n_drawn: Annotated[
        int,
        {"unit": "items", "least": 0, "most": 1 << 20, "search": (64, 4096, "log")},
        "Items drawn evenly per step, which compete with those of the batch.",
    ] = 256

    def history_inputs(self, data: Interactions) -> HistoryInputs:
        """Return how histories of this data become numbers."""
        return chosen_inputs(self.history_weights(data, DEFAULT_HALF_LIFE, self.window), self.width)


def fit(data: Interactions, config: TwoTowerConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit two towers that rank.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    task = NextTask.of(data, config.history_inputs(data), config.batch_size, config.n_drawn, rng)
    k = config.n_factors
    n_steps = config.n_epochs * task.batches.n_batches
    scales = TowerScales(TowerOutputs(k, 1 / config.temperature, normalise=True), TowerOutputs(k, normalise=True))
    with torch_run(NAME, data, config, rng, progress) as run:
        network = TwoTowerNet(
            *towers_of_one_map(task.inputs, task.features.encoder, len(data.items), config),
        ).to(run.device)
        network.share_item_vectors()

        def loss(batch: NextBatch) -> torch.Tensor:
            users = torch.nn.functional.normalize(network.users(batch.histories), dim=1)
            items = torch.nn.functional.normalize(network.items(batch.items), dim=1)
            logits = users @ items.T / config.temperature - batch.corrections
            logits[batch.excluded_users, batch.excluded_places] = EXCLUDED
            return torch.nn.functional.cross_entropy(logits, batch.places, reduction="sum")

        run.train(
            network,
            Objective(task.batches.drafts, task.batches.batch, loss),
            validation=list_validation(network, task, scales, run.device),
            rate=lambda step: max(_LAST_RATE, 1 - step / n_steps),
        )
        return as_model(data, NAME, config, network, task.features, scales, task.is_known, run.curve)


ALGORITHMS: Final = {NAME: Algorithm(TwoTowerConfig, DataParallelFit(NAME, fit), kind="ranking")}
