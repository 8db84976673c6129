"""RankNet, UserNet and ItemNet: lists in two steps, candidates by similarity and their order by preference.

UserNet makes a vector of a user's history and attributes, ItemNet one of an item and its categories. RankNet makes of
both the probability that the user prefers the item. The three are trained together, on two objectives (Kurovski, "Deep
Learning for Recommender Systems: Joint Learning of Similarity and Preference", master's thesis, Karlsruhe 2017):

- preference: the cross-entropy of RankNet's probability, of chosen items against others;
- similarity: the cosine of the vectors of a user and a chosen item is larger than that of others, so that the nearest
  items of a user are the candidates.

As in the thesis, RankNet has a wide part, here the products of both vectors, and a deep part: ELU layers that halve,
the first one as wide as the next power of two to both vectors, with dropout.

The thesis draws one other item for each chosen one, evenly in the item's category, and pulls the cosine to 1 or 0. Both
are weak in large catalogues: an even draw is rarely hard, and a cosine of 1 makes all items of a user alike. Here

- similarity is a softmax of cosines over the items of a batch, corrected for how often each is in one (Yi et al.,
  "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019);
- the other items of the cross-entropy are drawn by this very softmax, q(i | u), which gives candidates as they will be
  ranked. With m draws, the logit that is trained is z(u, i) - log(m q(i | u)), so that z becomes the logarithm of the
  probability of the item among all (noise-contrastive estimation: Gutmann and Hyvärinen, AISTATS 2010). What is served
  is logistic(z + log n), the probability that the item is the chosen one beside one drawn evenly from n.
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
from service.training.deep.fit.data_parallel import DataParallelFit
from service.training.deep.fit.objective import Objective
from service.training.deep.fit.torch_run import torch_run
from service.training.deep.group.row_draws import choices, drawing_for
from service.training.deep.next_item.batches import EXCLUDED, NextBatch
from service.training.deep.next_item.task import NextTask
from service.training.deep.towers.model import TowerScales
from service.training.deep.towers.nets import towers_of_one_map
from service.training.deep.towers.pair_net import PairNet, halving_units
from service.training.deep.towers.ranked import RankedTowers, ranked_model
from service.training.deep.towers.ranker_share import RankerConfig
from service.training.interactions import Interactions, Progress
from service.training.networks.two_tower import TwoTowerConfig

NAME: Final = "rank_net"
_LAST_RATE: Final = 0.02


@dataclass(frozen=True)
class RankNetConfig(TwoTowerConfig, RankerConfig):
    """Hyperparameters of RankNet, and of UserNet and ItemNet, which are two towers that rank."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 1024, "search": (16, 128, "log")}, "Outputs of both towers."
    ] = 64
    window: Annotated[
        int, {"unit": "interactions", "least": 1, "most": 100_000}, "Latest interactions that are read."
    ] = 50
    n_epochs: Annotated[
        int,
        {"unit": "epochs", "least": 1, "most": 10_000},
        "The most passes over the interactions; fewer if the validation stops improving.",
    ] = 15
    batch_size: Annotated[
        int, {"unit": "interactions", "least": 1, "most": 1 << 20}, "Interactions per step, whose items compete."
    ] = 256
    n_candidates: Annotated[
        int, {"unit": "items", "least": 1, "most": 100_000}, "Nearest items of a user that RankNet orders together."
    ] = 200
    n_others: Annotated[
        int,
        {"unit": "items", "least": 1, "most": 4096, "search": (4, 64, "log")},
        "Items drawn for each chosen one, for the preference.",
    ] = 8
    similarity_weight: Annotated[
        float,
        {"least": 0, "most": 1000, "search": (0.1, 10, "log")},
        "Weight of the objective of similarity; that of preference is 1.",
    ] = 1.0
    ranker_dropout: Annotated[
        float,
        {"least": 0, "most": 0.9, "search": (0, 0.5)},
        "Share of the units of RankNet's further layers left out in a step.",
    ] = 0.2


def fit(data: Interactions, config: RankNetConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit the three networks.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    task = NextTask.of(data, config.history_inputs(data), config.batch_size, config.n_drawn, rng)
    k, n_known = config.n_factors, int(task.is_known.sum())
    n_steps = config.n_epochs * task.batches.n_batches
    # Of both sides alike, so that RankNet reads numbers of one size.
    outputs = TowerOutputs(k, config.temperature**-0.5, normalise=True)
    scales = TowerScales(outputs, outputs)
    with torch_run(NAME, data, config, rng, progress) as run:
        network = RankedTowers(
            *towers_of_one_map(task.inputs, task.features.encoder, len(data.items), config),
            PairNet(
                *(k, halving_units(k), "elu", np.ones(k, dtype=np.float32)),
                dropout=config.ranker_dropout,
                offset=-math.log(n_known),
            ),
        ).to(run.device)
        network.share_item_vectors()
        run.train(
            network,
            Objective(task.batches.drafts, task.batches.batch, lambda batch: joint_loss(network, config, batch)),
            validation=network.validation(task, scales, config, run.device),
            rate=lambda step: max(_LAST_RATE, 1 - step / n_steps),
        )
        kept = network.keep_share(task, scales, config, run.device)
        return ranked_model(*(data, NAME, config, network, task, scales, run.curve, kept), offset=math.log(n_known))


ALGORITHMS: Final = {NAME: Algorithm(RankNetConfig, DataParallelFit(NAME, fit), kind="ranking")}


def joint_loss(network: RankedTowers, config: RankNetConfig, batch: NextBatch) -> torch.Tensor:
    """Return the weighted sum of both objectives, and over the users of the batch."""
    scale = config.temperature**-0.5
    users = scale * nn.functional.normalize(network.users(batch.histories), dim=1)
    items = scale * nn.functional.normalize(network.items(batch.items), dim=1)
    products = (users @ items.T).float()
    competing = products - batch.corrections
    competing[batch.excluded_users, batch.excluded_places] = EXCLUDED
    similarity = nn.functional.cross_entropy(competing, batch.places, reduction="sum")
    with drawing_for(batch.histories.rows):
        places, log_shares = drawn_others(products.detach(), competing.detach(), batch.places, config.n_others)
        logits = network.ranker(users, items, places).float() - log_shares - math.log(config.n_others)
    is_chosen = torch.zeros_like(logits)
    is_chosen[:, 0] = 1
    preference = nn.functional.binary_cross_entropy_with_logits(logits, is_chosen, reduction="sum")
    return config.similarity_weight * similarity + preference


def drawn_others(
    products: torch.Tensor, competing: torch.Tensor, chosen: torch.Tensor, n_others: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw other items for the chosen ones by the softmax of similarity.

    Args:
        products: Float32 (b, q), of users and items.
        competing: Float32 (b, q), the same, corrected, without the items that the users have.
        chosen: Int64 (b,), the places of the chosen items.
        n_others: How many are drawn for each, perhaps repeatedly.

    Returns:
        The places of the chosen item and of those drawn, int64 (b, 1 + n_others), and the logarithms of their shares
        of the softmax over all items, estimated from those of the batch, float32 of the same shape.
    """
    own = chosen[:, None]
    shares = competing.scatter(1, own, 2 * EXCLUDED).softmax(dim=1)
    places = torch.cat([own, choices(shares, n_others)], dim=1)
    return places, products.gather(1, places) - competing.logsumexp(dim=1, keepdim=True)
