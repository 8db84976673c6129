"""Sequence models: what a user does next, from the items of their recent interactions in their order.

A causal transformer reads a window of items and gives, at each position, a vector in the space of the items; the
latest one is the user. It is SASRec (W.-C. Kang and J. McAuley, ICDM 2018) with blocks before which is normalised, a
learnt bias of each distance in place of positions, and a softmax over the catalogue or a sample of it (A. Klenitskiy
and A. Vasilev, "Turning dross into gold loss: is BERT4Rec really better than SASRec?", RecSys 2023); with gated blocks
it is eSASRec (D. Tikhonovich et al., RecSys 2025).

The order of interactions is that of time; of equal times the later line of the source is the later interaction, and
without times the order is that of the source. Dismissals are left out. The latest interactions of some users are hidden
from the training and choose the epoch that is kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import torch

from service.errors import UsageError
from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.history.weights import HistoryWeights
from service.models.networks.networks import Networks
from service.models.networks.sequence import SequenceTower
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble
from service.training.deep.fit.data_parallel import DataParallelFit
from service.training.deep.fit.network_training import NetworkTraining
from service.training.deep.fit.objective import Objective
from service.training.deep.fit.torch_run import TorchRun, torch_run
from service.training.deep.fit.training_loop import Validation
from service.training.deep.group.share import ALONE, Share
from service.training.interactions import Float32, Int64, Interactions, Progress
from service.training.networks.item_windows import Draft, Histories
from service.training.networks.next_item_softmax import NextItemSoftmax
from service.training.networks.transformer import Transformer

NAME: Final = "sequence"
_BLOCKS: Final = ("gated", "plain")
# Users whose latest interaction is hidden: at most so many, and so large a share of all interactions. Fewer than the
# least number say nothing, and then all epochs are trained.
_MOST_JUDGED: Final = 2000
_LEAST_JUDGED: Final = 50
_JUDGED_SHARE: Final = 0.1
_TOP: Final = 10
_USERS_PER_BATCH: Final = 256
# From so many interactions an item on, data is dense.
_DENSE_FROM: Final = 100
# At least so many, unless a step has fewer interactions than the next number: in its first 500 steps or so, a network
# learns little more than popularity, and a validation would end the training there.
_STEPS_PER_EPOCH: Final = 128
_LEAST_BATCH: Final = 128
_WARM_UP_STEPS: Final = 200  # or a tenth of all, if that is less
_LEAST_RATE: Final = 0.02


@dataclass(frozen=True)
class SequenceConfig(NetworkTraining):
    """Hyperparameters of sequence models."""

    n_factors: Annotated[
        int,
        {"unit": "factors", "least": 2, "most": 1024, "search": (32, 256, "log")},
        "Factors per item, the width of the transformer; a multiple of n_heads.",
    ] = 64
    n_blocks: Annotated[
        int, {"unit": "blocks", "least": 1, "most": 32, "search": (1, 4)}, "Blocks of the transformer."
    ] = 2
    n_heads: Annotated[int, {"unit": "heads", "least": 1, "most": 64}, "Heads of the attention of a block."] = 2
    window: Annotated[
        int,
        {"unit": "interactions", "least": 1, "most": 1024, "search": (50, 200, "log")},
        "Latest interactions of a user that count.",
    ] = 200
    block: Annotated[
        str, {"choices": _BLOCKS}, "Blocks with gates and SwiGLU, as in eSASRec, or plain ones, as in SASRec."
    ] = "gated"
    dropout: Annotated[
        float | None,
        {"least": 0, "most": 0.9, "search": (0.1, 0.5)},
        "Share of the values within the network that is dropped; if none, 0.2 of dense data, else 0.4.",
    ] = None
    n_negatives: Annotated[
        int | None,
        {"unit": "items", "least": 0, "most": 100_000},
        "Items drawn per step as negatives, which all of its positions share; 0 for all items; "
        "if none, 256 of dense data, else 1024.",
    ] = None
    n_epochs: Annotated[
        int,
        {"unit": "epochs", "least": 1, "most": 10_000},
        "The most passes over the interactions; fewer if the validation stops improving.",
    ] = 100
    patience: Annotated[
        int,
        {"unit": "epochs", "least": 0, "most": 10_000},
        "Epochs without a better validation after which training stops; 0 for never.",
    ] = 20
    batch_size: Annotated[
        int,
        {"unit": "interactions", "least": 1, "most": 1 << 20},
        "The most interactions per step, padding included; smaller, to 128, where an epoch would have under 128 steps.",
    ] = 4096
    lr: Annotated[
        float,
        {"least": 1e-6, "most": 10, "search": (3e-4, 1e-2, "log")},
        "Highest learning rate, after a warm-up; it falls to a fiftieth until the last step.",
    ] = 0.0015
    weight_decay: Annotated[
        float,
        {"least": 0, "most": 10, "search": (1e-5, 1e-1, "log")},
        "Decoupled weight decay per step, relative to the learning rate (AdamW); 0 for Adam.",
    ] = 0.01
    clip_norm: Annotated[
        float, {"least": 0, "most": 1e6}, "The largest norm of all gradients of a step; 0 for no limit."
    ] = 1.0


def fit(data: Interactions, config: SequenceConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit a sequence model.

    Raises:
        UsageError: The heads do not divide the factors.
        TrainingDiverged: The loss is not finite.
    """
    if config.n_factors % config.n_heads:
        raise UsageError(f"sequence: n_heads={config.n_heads} does not divide n_factors={config.n_factors}.")
    with torch_run(NAME, data, config, rng, progress) as run:
        histories = Histories.of(data)
        judged = _judged(histories, rng)
        dropout, n_negatives = _by_density(histories, config)
        network = Transformer(
            histories.n_items,
            config.n_factors,
            config.n_blocks,
            config.n_heads,
            config.window,
            dropout,
            is_gated=config.block == _BLOCKS[0],
        ).to(run.device)
        _train(run, network, histories, judged, n_negatives, config)
        users = _users(network, histories, run.device)
        tensors = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
        items = tensors.pop("items.weight")[:-1].copy()
        # Items without an interaction have learnt only that they are negatives.
        items[np.bincount(data.item_rows, minlength=len(items)) == 0] = 0
        tower = SequenceTower.of(tensors, {"n_blocks": config.n_blocks, "n_heads": config.n_heads})
        return assemble(
            data,
            NAME,
            config,
            user_factors=users,
            item_factors=items,
            fold_in=FoldIn(NETWORK, HistoryWeights(window=config.window)),
            networks=Networks(tower),
            learning_curve=run.curve,
        )


ALGORITHMS: Final = {NAME: Algorithm(SequenceConfig, DataParallelFit(NAME, fit), kind="ranking")}


def _by_density(histories: Histories, config: SequenceConfig) -> tuple[float, int]:
    """Return the dropout and the number of negatives: what is set, else what suits the interactions per item."""
    n_known = np.unique(histories.items).size
    is_dense = len(histories.items) >= _DENSE_FROM * n_known
    dropout = (0.2 if is_dense else 0.4) if config.dropout is None else config.dropout
    n_negatives = (256 if is_dense else 1024) if config.n_negatives is None else config.n_negatives
    return dropout, n_negatives


def _judged(histories: Histories, rng: np.random.Generator) -> Int64:
    """Return the users whose latest interaction is hidden, int64, ascending; none in small data."""
    able = np.flatnonzero(histories.lengths > 2)
    n_judged = min(_MOST_JUDGED, int(_JUDGED_SHARE * len(histories.items)), able.size)
    return np.sort(rng.permutation(able)[: n_judged if n_judged >= _LEAST_JUDGED else 0])


def _train(
    run: TorchRun, network: Transformer, histories: Histories, judged: Int64, n_negatives: int, config: SequenceConfig
) -> None:
    stops = histories.stops.copy()
    stops[judged] -= 1
    learnt = histories._replace(stops=stops)
    drawn = np.bincount(learnt.items, minlength=learnt.n_items) > 0
    softmax = NextItemSoftmax(network, torch.from_numpy(np.flatnonzero(drawn)).to(run.device), n_negatives)
    n_positions = int(np.maximum(learnt.lengths - 1, 0).sum())
    batch_size = min(config.batch_size, max(_LEAST_BATCH, n_positions // _STEPS_PER_EPOCH))
    n_steps = config.n_epochs * max(1, n_positions // batch_size)

    def drafts(rng: np.random.Generator) -> Iterator[Draft]:
        network.dropout.draw(torch.Generator().manual_seed(int(rng.integers(1 << 62))))
        return learnt.drafts(config.window, batch_size, rng)

    def ndcg(share: Share = ALONE) -> float:
        # Every nth user, so that the members of a group have histories of all lengths.
        gains = _gains(network, histories, learnt, judged[share.rank :: share.size], run.device)
        return gains / judged.size

    run.train(
        network,
        Objective(drafts, learnt.batch, softmax.loss),
        validation=Validation(f"ndcg@{_TOP}", ndcg, part=ndcg) if judged.size else None,
        optimizer=lambda module: torch.optim.AdamW(
            module.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
        ),
        rate=lambda step: _rate(step, n_steps),
    )


def _rate(step: int, n_steps: int) -> float:
    """Return the factor of the learning rate: it rises at first, then falls as a cosine."""
    falling = 0.5 * (1 + math.cos(math.pi * min(step / n_steps, 1.0)))
    rising = min(1.0, (step + 1) / max(1, min(_WARM_UP_STEPS, n_steps // 10)))
    return rising * (_LEAST_RATE + (1 - _LEAST_RATE) * falling)


@torch.no_grad()
def _users(network: Transformer, histories: Histories, device: torch.device) -> Float32:
    """Compute all users after their latest interaction: float32 (n_users, n_factors), zeros without one."""
    found = np.zeros((histories.lengths.size, network.items.embedding_dim), dtype=np.float32)
    for users, states in _latest(network, histories, np.flatnonzero(histories.lengths), device):
        found[users] = states.cpu().numpy()
    return found


def _latest(
    network: Transformer, histories: Histories, users: Int64, device: torch.device
) -> Iterator[tuple[Int64, torch.Tensor]]:
    """Yield users and their vectors, some at a time, those with histories of nearly the same length together."""
    by_length = users[np.argsort(np.minimum(histories.lengths[users], network.window), kind="stable")]
    for start in range(0, by_length.size, _USERS_PER_BATCH):
        some = by_length[start : start + _USERS_PER_BATCH]
        items, last = histories.latest(some, network.window)
        yield some, network(items.to(device))[torch.arange(some.size, device=device), last.to(device)]


def _gains(network: Transformer, histories: Histories, learnt: Histories, judged: Int64, device: torch.device) -> float:
    """Return the sum of NDCG@10 of the hidden interactions of users in lists of all items but those they know."""
    total = 0.0
    for users, states in _latest(network, learnt, judged, device):
        scores = (states @ network.table.T).cpu().numpy()
        hidden = histories.items[learnt.stops[users]]
        wanted = scores[np.arange(users.size), hidden].copy()
        for row, user in enumerate(users.tolist()):
            scores[row, learnt.items[learnt.starts[user] : learnt.stops[user]]] = -np.inf
        ranks = np.count_nonzero(scores > wanted[:, np.newaxis], axis=1)
        total += float((1 / np.log2(ranks[ranks < _TOP] + 2.0)).sum())
    return total
