"""Two towers that rank: which item a user chooses next, by a softmax over the items of a batch.

The score of an item is the cosine of the outputs of both towers over a temperature. The loss of a batch is the mean of

    -log( exp(s(u, i) - log q_i) / sum over items j of the batch of exp(s(u, j) - log q_j) )

where q_j is the probability that j is in a batch, without which popular items would be scored too low (Yi et al.,
"Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019). The sum leaves out items
that the user has chosen before. The user tower sees the user's latest items, weighted by several half-lives, and the
user's attributes; so a new event changes the user at once, and a user without a history is computed from attributes.
`two_tower_rating` describes the towers.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import torch

from service.models.history_weights import HistoryWeights
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.tower_outputs import TowerOutputs
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.weighted_history import DEFAULT_HALF_LIFE, WeightedHistory
from service.training.data_features import DataFeatures
from service.training.deep.next_batches import EXCLUDED, NextBatch, NextBatches
from service.training.deep.next_validation import LENGTH, NextValidation, last_of_users
from service.training.deep.torch_run import torch_run
from service.training.deep.tower_nets import HistoryNet, ItemNet
from service.training.deep.trained_towers import TowerScales, TwoTowerNet, as_model, item_outputs
from service.training.deep.training_loop import Validation, moved
from service.training.entry_weights import are_positive
from service.training.interactions import Interactions, Progress
from service.training.networks.two_tower_rating import TowerConfig, rows_of_step

NAME: Final = "two_tower"
# Of the half-life of the user's interactions.
_SHORTER: Final = 0.25
_LONGER: Final = 4.0
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
        weights = self.history_weights(data, DEFAULT_HALF_LIFE, self.window)
        half_life = weights.half_life
        half_lives = (0.0,) if half_life is None else (_SHORTER * half_life, half_life, _LONGER * half_life)
        undecayed: HistoryWeights = dataclasses.replace(weights, half_life=None)
        return HistoryInputs(self.width, half_lives, 1.0, None, undecayed)


def fit(data: Interactions, config: TwoTowerConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit two towers that rank.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    features = DataFeatures.of(data)
    inputs = config.history_inputs(data)
    is_positive = are_positive(data, inputs.weights)
    ordered = data
    if not data.has_order:
        # Any order is as good as another, but that of the source, in which items may follow each other by their ids.
        # A generator of its own: the source may have been shuffled with the seed of this one.
        shuffled = np.random.default_rng(int(rng.integers(1 << 62))).permutation(len(data))
        ordered = dataclasses.replace(data, timestamps=shuffled)
    judged = last_of_users(ordered, is_positive, rng)
    is_learnt = is_positive.copy()
    is_learnt[judged] = False
    learnt = np.flatnonzero(is_learnt)
    is_known = np.bincount(data.item_rows[learnt], minlength=len(data.items)) > 0
    validation = NextValidation(ordered, judged, is_known)
    batch_size = rows_of_step(config.batch_size, learnt.size)
    batches = NextBatches(ordered, features, inputs, learnt, batch_size, config.n_drawn)
    n_steps = config.n_epochs * batches.n_batches
    user_outputs = TowerOutputs(config.n_factors, 1 / config.temperature, normalise=True)
    item_outputs_ = TowerOutputs(config.n_factors, normalise=True)
    with torch_run(NAME, data, config, rng, progress) as run:
        first_map = torch.randn(config.width, config.n_factors) / config.width**0.5
        network = TwoTowerNet(
            HistoryNet(
                *(inputs, len(data.items), features.encoder.user_sizes, config.units, config.n_factors),
                dropout=config.dropout,
                unknown_share=config.unknown_share,
                first_map=first_map.clone(),
            ),
            ItemNet(
                *(len(data.items), features.encoder.n_item_categories, config.width, config.units, config.n_factors),
                dropout=config.dropout,
                unknown_share=config.unknown_share,
                first_map=first_map.clone(),
            ),
        ).to(run.device)
        # The same vectors on both sides: items that follow each other come to be alike.
        network.items.own = network.users.chosen

        def loss(batch: NextBatch) -> torch.Tensor:
            users = torch.nn.functional.normalize(network.users(batch.histories), dim=1)
            items = torch.nn.functional.normalize(network.items(batch.items), dim=1)
            logits = users @ items.T / config.temperature - batch.corrections
            logits[batch.excluded_users, batch.excluded_places] = EXCLUDED
            return torch.nn.functional.cross_entropy(logits, batch.places)

        def ndcg() -> float:
            users = torch.cat([network.users(moved(histories, run.device)) for histories in batches.in_order(judged)])
            items = item_outputs(network.items, features, run.device)
            of_users, _ = user_outputs.split(users.cpu().numpy())
            of_items, _ = item_outputs_.split(items.cpu().numpy())
            return float(validation.gains(of_users, of_items).mean())

        run.train(
            network,
            batches.epoch,
            loss,
            validation=Validation(f"ndcg@{LENGTH}", ndcg) if judged.size else None,
            rate=lambda step: max(_LAST_RATE, 1 - step / n_steps),
        )
        scales = TowerScales(user_outputs, item_outputs_)
        return as_model(data, NAME, config, network, features, scales, is_known, run.curve)


ALGORITHMS: Final = {NAME: Algorithm(TwoTowerConfig, fit, kind="ranking")}
