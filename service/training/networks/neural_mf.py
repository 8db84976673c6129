"""Neural matrix factorisation: a weighted product of factors beside a perceptron over the same factors.

The logit of a user with the factors p and an item with the factors q is

    offset + sum over f of h_f p_f q_f + perceptron(p, q)

that of generalised matrix factorisation and a perceptron, whose layers halve and have rectifiers, on shared factors
(He, Liao, Zhang, Nie, Hu and Chua, "Neural collaborative filtering", WWW 2017, section 3.4). As there, the loss is the
cross-entropy of chosen items against others that are drawn evenly. The same loss of the plain product p . q replaces
the pre-training of the factors, and makes the items with the largest products the candidates that the whole network
orders. Both are regularised: factors by the squares of those in the batch, the perceptron by dropout.

A user has no factors of their own. They are linear in sums over the history and in the attributes, so that an event
counts at once and a new user is treated as a known one (Kabbur, Ning and Karypis, "FISM: factored item similarity
models for top-n recommender systems", KDD 2013). Factors of items are linear in those of the item and its categories.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import torch
from torch import nn

from service.models.networks.tower_outputs import TowerOutputs
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.weighted_history import DEFAULT_HALF_LIFE, WeightedHistory
from service.training.deep.fit.data_parallel import DataParallelFit
from service.training.deep.fit.network_training import NetworkTraining
from service.training.deep.fit.objective import Objective
from service.training.deep.fit.torch_run import torch_run
from service.training.deep.group.row_draws import choices, drawing_for
from service.training.deep.next_item.batches import EXCLUDED, NextBatch
from service.training.deep.next_item.task import NextTask, chosen_inputs
from service.training.deep.towers.model import TowerScales
from service.training.deep.towers.nets import HistoryNet, ItemNet
from service.training.deep.towers.pair_net import PairNet, halving_units
from service.training.deep.towers.ranked import RankedTowers, ranked_model
from service.training.deep.towers.ranker_share import RankerConfig
from service.training.interactions import Interactions, Progress

NAME: Final = "neural_mf"
_LAST_RATE: Final = 0.02


@dataclass(frozen=True)
class NeuralMfConfig(NetworkTraining, WeightedHistory, RankerConfig):
    """Hyperparameters of neural matrix factorisation."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 1024, "search": (16, 128, "log")}, "Factors per user and item."
    ] = 64
    width: Annotated[
        int,
        {"unit": "numbers", "least": 1, "most": 4096, "search": (16, 128, "log")},
        "Length of the vectors of items and categories as inputs.",
    ] = 64
    window: Annotated[
        int, {"unit": "interactions", "least": 1, "most": 100_000}, "Latest interactions that are read."
    ] = 50
    n_candidates: Annotated[
        int,
        {"unit": "items", "least": 1, "most": 100_000},
        "Items of the largest products that are ordered together.",
    ] = 200
    n_others: Annotated[
        int,
        {"unit": "items", "least": 1, "most": 4096, "search": (2, 32, "log")},
        "Items drawn evenly for each chosen one.",
    ] = 8
    n_drawn: Annotated[
        int, {"unit": "items", "least": 0, "most": 1 << 20}, "Items drawn evenly for each step, besides those chosen."
    ] = 256
    reg: Annotated[
        float,
        {"least": 0, "most": 10, "search": (1e-5, 1e-1, "log")},
        "Weight of the squares of the factors in a batch.",
    ] = 0.001
    ranker_dropout: Annotated[
        float,
        {"least": 0, "most": 0.9, "search": (0, 0.5)},
        "Share of the units of the perceptron's further layers left out in a step.",
    ] = 0.2
    unknown_share: Annotated[
        float,
        {"least": 0, "most": 0.9},
        "Share of items in a step of which only the categories are given, and of attributes of users left out.",
    ] = 0.1
    n_epochs: Annotated[
        int,
        {"unit": "epochs", "least": 1, "most": 10_000},
        "The most passes over the interactions; fewer if the validation stops improving.",
    ] = 15
    patience: Annotated[
        int,
        {"unit": "epochs", "least": 0, "most": 10_000},
        "Epochs without a better validation after which training stops; 0 for never.",
    ] = 3
    batch_size: Annotated[
        int, {"unit": "interactions", "least": 1, "most": 1 << 20}, "Interactions per step, whose items compete."
    ] = 256
    lr: Annotated[
        float,
        {"least": 1e-6, "most": 10, "search": (3e-4, 1e-2, "log")},
        "Adam's learning rate at first; it falls linearly to a fiftieth.",
    ] = 0.002


def fit(data: Interactions, config: NeuralMfConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit neural matrix factorisation.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    inputs = chosen_inputs(config.history_weights(data, DEFAULT_HALF_LIFE, config.window), config.width)
    task = NextTask.of(data, inputs, config.batch_size, config.n_drawn, rng)
    k, encoder = config.n_factors, task.features.encoder
    n_steps = config.n_epochs * task.batches.n_batches
    scales = TowerScales(TowerOutputs(k), TowerOutputs(k))
    with torch_run(NAME, data, config, rng, progress) as run:
        network = RankedTowers(
            HistoryNet(*(task.inputs, len(data.items), encoder.user_sizes, (), k), unknown_share=config.unknown_share),
            ItemNet(
                *(len(data.items), encoder.n_item_categories, config.width, (), k), unknown_share=config.unknown_share
            ),
            PairNet(
                *(k, halving_units(k), "relu", np.ones(k, dtype=np.float32)),
                reads_products=False,
                dropout=config.ranker_dropout,
                offset=-math.log(config.n_others),
            ),
        ).to(run.device)
        network.share_item_vectors()
        with torch.no_grad():
            # At first, factors are the vectors of items in one map, and users the means of these.
            first_map = torch.randn(k, config.width) / config.width**0.5
            n_sums = len(inputs.half_lives)
            network.items.perceptron.last.weight.copy_(first_map)
            network.users.perceptron.last.weight[:, : n_sums * config.width] = first_map.repeat(1, n_sums) / n_sums
        run.train(
            network,
            Objective(task.batches.drafts, task.batches.batch, lambda batch: loss_of(network, config, batch)),
            validation=network.validation(task, scales, config, run.device),
            rate=lambda step: max(_LAST_RATE, 1 - step / n_steps),
        )
        kept = network.keep_share(task, scales, config, run.device)
        # The probability beside one drawn item.
        offset = math.log(config.n_others)
        return ranked_model(*(data, NAME, config, network, task, scales, run.curve, kept), offset=offset)


ALGORITHMS: Final = {NAME: Algorithm(NeuralMfConfig, DataParallelFit(NAME, fit), kind="ranking")}


def loss_of(network: RankedTowers, config: NeuralMfConfig, batch: NextBatch) -> torch.Tensor:
    """Return the regularised cross-entropy of the network and of the product alone, the sum over the batch."""
    users, items = network.users(batch.histories), network.items(batch.items)
    # Drawn from the items of the batch by the inverse of how often they are in one, items are drawn evenly from all.
    competing = (-batch.corrections).repeat(len(users), 1)
    competing[batch.excluded_users, batch.excluded_places] = EXCLUDED
    own = batch.places[:, None]
    shares = competing.scatter(1, own, 2 * EXCLUDED).softmax(dim=1)
    with drawing_for(batch.histories.rows):
        places = torch.cat([own, choices(shares, config.n_others)], dim=1)
        of_pairs = items[places]
        products = (users[:, None] * of_pairs).sum(dim=2) + network.ranker.offset
        logits = network.ranker(users, items, places)
    is_chosen = torch.zeros_like(logits)
    is_chosen[:, 0] = 1
    cross_entropy = nn.functional.binary_cross_entropy_with_logits
    total = cross_entropy(logits, is_chosen, reduction="sum") + cross_entropy(products, is_chosen, reduction="sum")
    squares = users.square().sum() + of_pairs.square().sum() / (1 + config.n_others)
    loss: torch.Tensor = total + config.reg * squares
    return loss
