"""Two towers that predict ratings: a network for users and one for items, whose outputs meet in a product.

The towers have hidden layers of 256 and 128 units and 32 outputs, and are trained by Adam on the squared error of

    mean + b_u + b_i + x_u . y_i

where x_u and b_u come from the user tower, of the user's other ratings and attributes, and y_i and b_i from the item
tower, of the item's own vector and its categories. A user has no vector of their own: what the tower knows of a user is
what a replica knows of a new one, so that every rating changes the user at once (the two towers of Covington, Adams and
Sargin, RecSys 2016, with the ratings among the input as in Zheng et al., ICML 2016).
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import torch

from service.models.history.weights import HistoryWeights
from service.models.networks.history_inputs import HistoryInputs
from service.models.networks.rating_unit import RatingUnit
from service.models.networks.tower_outputs import TowerOutputs
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Algorithm
from service.training.data.features import DataFeatures
from service.training.deep.batches.items import item_batch
from service.training.deep.batches.loaders import rows_of_step
from service.training.deep.batches.ratings import RatingBatch, RatingBatches
from service.training.deep.fit.data_parallel import DataParallelFit
from service.training.deep.fit.objective import Objective
from service.training.deep.fit.torch_run import torch_run
from service.training.deep.fit.training_loop import Validation, moved
from service.training.deep.towers.config import TowerConfig
from service.training.deep.towers.model import TowerScales, TwoTowerNet, as_model
from service.training.deep.towers.nets import HistoryNet, ItemNet
from service.training.interactions import Float32, Int32, Int64, Interactions, Progress

NAME: Final = "two_tower_rating"
# An item's mean rating is computed as if it had so many ratings of the mean of all besides.
_ITEM_PRIOR: Final = 5.0
# Ratings on which epochs are compared: a share of all, at most so many; none of fewer than the least.
_VALIDATION_SHARE: Final = 0.03
_MOST_VALIDATION: Final = 50_000
_LEAST_RATINGS: Final = 100
_LAST_RATE: Final = 0.02


@dataclass(frozen=True)
class TwoTowerRatingConfig(TowerConfig):
    """Hyperparameters of two towers that predict ratings."""

    n_epochs: Annotated[
        int,
        {"unit": "epochs", "least": 1, "most": 10_000},
        "The most passes over the ratings; fewer if the validation stops improving.",
    ] = 60
    patience: Annotated[
        int,
        {"unit": "epochs", "least": 0, "most": 10_000},
        "Epochs without a better validation after which training stops; 0 for never.",
    ] = 10
    batch_size: Annotated[
        int,
        {"unit": "ratings", "least": 1, "most": 1 << 24},
        "Ratings per step, about; small data has smaller steps.",
    ] = 16_384
    lr: Annotated[
        float,
        {"least": 1e-6, "most": 10, "search": (3e-4, 1e-2, "log")},
        "Adam's learning rate at first; it falls linearly to a fiftieth.",
    ] = 0.003
    window: Annotated[int, {"unit": "interactions", "least": 1, "most": 100_000}, "Latest ratings that are read."] = 500


def fit(
    data: Interactions, config: TwoTowerRatingConfig, rng: np.random.Generator, progress: Progress
) -> ModelSnapshot:
    """Fit two towers that predict ratings.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    features = DataFeatures.of(data)
    unit = RatingUnit.of(data.ratings)
    ratings = unit.learnt(data.ratings)
    learnt, judged = _validation_split(len(data), rng)
    item_means = _item_means(data.item_rows[learnt], ratings[learnt], len(data.items))
    weights = HistoryWeights(dislike_weight=1.0, window=config.window)
    inputs = HistoryInputs(config.width, (0.0,), 0.5, unit, weights)
    batches = RatingBatches(data.take(learnt), features, inputs, ratings[learnt], item_means)
    batch_size = rows_of_step(config.batch_size, learnt.size)
    n_steps = config.n_epochs * batches.n_batches(batch_size)
    with torch_run(NAME, data, config, rng, progress) as run:
        network = TwoTowerNet(
            HistoryNet(
                *(inputs, len(data.items), features.encoder.user_sizes, config.units, config.n_factors + 1),
                dropout=config.dropout,
                unknown_share=config.unknown_share,
            ),
            ItemNet(
                *(len(data.items), features.encoder.n_item_categories, config.width),
                *(config.units, config.n_factors + 1),
                dropout=config.dropout,
                unknown_share=config.unknown_share,
                first_biases=item_means,
            ),
        ).to(run.device)

        def loss(batch: RatingBatch) -> torch.Tensor:
            predicted = product(network.users(batch.histories)[batch.users], network.items(batch.items)[batch.places])
            return torch.nn.functional.mse_loss(predicted, batch.targets, reduction="sum")

        def error() -> float:
            pairs = data.user_rows[judged], data.item_rows[judged]
            return unit.deviation * _error(network, batches, features, pairs, ratings[judged], run.device)

        run.train(
            network,
            Objective(lambda generator: batches.drafts(batch_size, generator), batches.batch, loss),
            validation=Validation("rmse", error, larger_is_better=False) if judged.size else None,
            rate=lambda step: max(_LAST_RATE, 1 - step / n_steps),
        )
        scale = unit.deviation**0.5
        outputs = TowerOutputs(config.n_factors, scale, unit.deviation, has_bias=True)
        scales = TowerScales(outputs, outputs, unit.mean, item_means)
        is_known = np.bincount(data.item_rows, minlength=len(data.items)) > 0
        return as_model(data, NAME, config, network, features, scales, is_known, run.curve)


ALGORITHMS: Final = {NAME: Algorithm(TwoTowerRatingConfig, DataParallelFit(NAME, fit))}


def product(users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Return the scores of pairs, float32 (t,), of outputs (t, k + 1) of which the last is a bias."""
    scores: torch.Tensor = (users[:, :-1] * items[:, :-1]).sum(dim=1) + users[:, -1] + items[:, -1]
    return scores


def _validation_split(n: int, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Return the positions of n ratings that are learnt, and those on which epochs are compared, ascending."""
    order = rng.permutation(n)
    n_judged = min(int(n * _VALIDATION_SHARE), _MOST_VALIDATION) if n >= _LEAST_RATINGS else 0
    return np.sort(order[n_judged:]), np.sort(order[:n_judged])


def _item_means(item_rows: Int32, ratings: Float32, n_items: int) -> Float32:
    """Return the mean rating of each item above that of all, float32 (n_items,), drawn to 0 where ratings are few."""
    counts = np.bincount(item_rows, minlength=n_items)
    means: Float32 = (np.bincount(item_rows, ratings, n_items) / (counts + _ITEM_PRIOR)).astype(np.float32)
    return means


def _error(
    network: TwoTowerNet,
    batches: RatingBatches,
    features: DataFeatures,
    pairs: tuple[Int32, Int32],
    ratings: Float32,
    device: torch.device,
) -> float:
    """Return the root mean square error of pairs of users and items, in the unit of the ratings, float32 (n,)."""
    users, user_places = np.unique(pairs[0], return_inverse=True)
    items, item_places = np.unique(pairs[1], return_inverse=True)
    of_users = torch.cat([network.users(moved(batch, device)) for batch in batches.histories(users.astype(np.int64))])
    of_items = network.items(moved(item_batch(features.items, items.astype(np.int64)), device))
    predicted = product(of_users[torch.from_numpy(user_places)], of_items[torch.from_numpy(item_places)])
    return float((predicted.cpu() - torch.from_numpy(ratings)).square().mean().sqrt())
