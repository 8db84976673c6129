"""Factorisation by a sampled softmax: interactions compete with items drawn at random.

User factors w and item factors h give the score s(u, i) = cos(w_u, h_i) / temperature. The loss of a mini-batch B
of interactions, which share the drawn items N, is

    sum over (u, i) in B of  -log( exp s(u, i) / (exp s(u, i) + sum over j in N of exp s(u, j)) )

where the sum leaves out the items of u's interactions (Wu, Wang, Gao, Chen, Fu and Qiu, "On the effectiveness of
sampled softmax loss for item recommendation", ACM Transactions on Information Systems 42(4), 2024; with one drawn item
and a product for the cosine it would be BPR: Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian
personalized ranking from implicit feedback", UAI 2009). Each step is one of Adam (Kingma and Ba, ICLR 2015) for the
rows of the mini-batch, at a rate that falls linearly to 0. tests/reference/softmax.py is the slow equivalent.

A cosine does not depend on lengths. Weight decay would only shorten factors and is absent; published factors of items
have length 1. Those of users are not the ones that Adam ends with, but the fold-in of their histories given the items
(`inputs`), so that recency counts and a new user is treated as a known one.

Invariant: the result depends on data, hyperparameters and generator alone. A mini-batch is cut into shards of a fixed
size, and the gradients of the shards are added in order.
"""

from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import numpy as np

from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.sparse.rows import SparseRows, sparse_rows
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.softmax.inputs import input_factors_of
from service.training.algorithms.weighted_history import WeightedHistory
from service.training.assembly import assemble, history, history_entries
from service.training.entry_weights import folded_in, positives
from service.training.interactions import Float32, Int32, Interactions, Progress

NAME: Final = "softmax"
# The constants of Adam, as its authors recommend.
BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-8
SHARD: Final = 256  # interactions per shard of a mini-batch


@dataclass(frozen=True)
class SoftmaxConfig(WeightedHistory):
    """Hyperparameters of the softmax factorisation."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 4096, "search": (32, 256, "log")}, "Factors per user and item."
    ] = 64
    n_epochs: Annotated[
        int, {"unit": "epochs", "least": 1, "most": 10_000, "search": (5, 60, "log")}, "Passes over the interactions."
    ] = 12
    batch_size: Annotated[
        int,
        {"unit": "interactions", "least": 1, "most": 1 << 20},
        "Interactions per step, which share the drawn items.",
    ] = 512
    n_negatives: Annotated[
        int,
        {"unit": "items", "least": 1, "most": 1 << 20, "search": (256, 4096, "log")},
        "Items drawn per step, at most all.",
    ] = 1024
    temperature: Annotated[
        float,
        {"least": 0.03, "most": 100, "search": (0.05, 0.3, "log")},
        "Divisor of cosines; a lower one emphasises close competitors.",
    ] = 0.15
    lr: Annotated[float, {"least": 0, "most": 10, "search": (0.002, 0.05, "log")}, "Adam's learning rate at first."] = (
        0.02
    )
    init_std_dev: Annotated[float, {"least": 1e-4, "most": 100}, "Standard deviation of the initial factors."] = 0.1


class AdamTable:
    """Factors of all users or of all items, not normalised, with the moments of Adam."""

    def __init__(self, n: int, config: SoftmaxConfig, rng: np.random.Generator) -> None:
        self.factors = first_factors(n, config, rng)
        self._means = np.zeros_like(self.factors)
        self._squares = np.zeros_like(self.factors)
        self._places = np.full(n, -1, dtype=np.int32)

    def step(self, rows: Int32, gradients: Float32, rate: float, step_number: int) -> None:
        """Take one step of Adam.

        Args:
            rows: Int32 (m,); the gradients of a repeated row are summed.
            gradients: Float32 (m, k), by the direction of a row's factors; overwritten.
            step_number: From 1.
        """
        rate *= (1 - BETA_2**step_number) ** 0.5 / (1 - BETA_1**step_number)
        _step(rows, gradients, self.factors, self._means, self._squares, self._places, np.float32(rate))


class MiniBatch(NamedTuple):
    """The interactions of one step, and the items drawn for it.

    Attributes:
        users: Int32 (b,), user rows.
        items: Int32 (b,), item rows.
        drawn: Int32 (m,), item rows, each once.
    """

    users: Int32
    items: Int32
    drawn: Int32


class Gradients(NamedTuple):
    """Gradients of a mini-batch by direction: float32 (b, k), (b, k) and (m, k), in its order."""

    users: Float32
    items: Float32
    drawn: Float32


def fit(
    data: Interactions, config: SoftmaxConfig, rng: np.random.Generator, progress: Progress, *, shard: int = SHARD
) -> ModelSnapshot:
    """Fit the softmax factorisation, without biases. It cannot diverge: the rate bounds Adam's steps."""
    users, items = AdamTable(len(data.users), config, rng), AdamTable(len(data.items), config, rng)
    weights = config.history_weights(data)
    liked = positives(data, weights)
    is_known_item = np.bincount(liked.item_rows, minlength=len(data.items)) > 0
    catalogue = np.flatnonzero(is_known_item).astype(np.int32)
    seen = sparse_rows(history(data))
    n, n_steps = len(liked), 0
    n_all_steps = config.n_epochs * -(-n // config.batch_size)
    progress("fit", 0, config.n_epochs)
    with threads.one_blas_thread():
        for epoch in range(config.n_epochs):
            order = rng.permutation(n)
            for start in range(0, n, config.batch_size):
                visited = order[start : start + config.batch_size]
                drawn = draw(catalogue, config.n_negatives, rng)
                batch = MiniBatch(liked.user_rows[visited], liked.item_rows[visited], drawn)
                rate = config.lr * (1 - n_steps / n_all_steps)
                n_steps += 1
                gradients = gradients_of(batch, users.factors, items.factors, seen, config.temperature, shard)
                users.step(batch.users, gradients.users, rate, n_steps)
                rows = np.concatenate([batch.items, batch.drawn])
                items.step(rows, np.concatenate([gradients.items, gradients.drawn]), rate, n_steps)
            progress("fit", epoch + 1, config.n_epochs)
    item_factors = directions(items.factors)
    item_factors[~is_known_item] = 0
    inputs = input_factors_of(item_factors, history(liked), config.temperature)
    how = FoldIn("decayed_sum", weights, {"norm_exponent": 1.0})
    return assemble(
        data,
        NAME,
        config,
        user_factors=folded_in(history_entries(data), how, inputs),
        item_factors=item_factors,
        input_factors=inputs,
        fold_in=how,
    )


ALGORITHMS: Final = {NAME: Algorithm(SoftmaxConfig, fit, kind="ranking")}


def first_factors(n: int, config: SoftmaxConfig, rng: np.random.Generator) -> Float32:
    """Draw the initial factors, float32 (n, k)."""
    factors = rng.standard_normal((n, config.n_factors), dtype=np.float32)
    factors *= np.float32(config.init_std_dev)
    return factors


def draw(catalogue: Int32, n: int, rng: np.random.Generator) -> Int32:
    """Draw at most n items without replacement."""
    if n >= catalogue.size:
        return catalogue
    return catalogue[rng.choice(catalogue.size, n, replace=False, shuffle=False)]


def directions(factors: Float32) -> Float32:
    """Return rows normalised to length 1, float32; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("ij,ij->i", factors, factors))
    lengths[lengths == 0] = 1
    unit: Float32 = factors / lengths[:, np.newaxis]
    return unit


def gradients_of(
    batch: MiniBatch,
    user_factors: Float32,
    item_factors: Float32,
    seen: SparseRows,
    temperature: float,
    shard: int = SHARD,
) -> Gradients:
    """Differentiate the loss of a mini-batch by the directions of its users, its items and the drawn items.

    Args:
        user_factors: Float32 (n_users, k), not normalised.
        item_factors: Float32 (n_items, k), not normalised.
        seen: The items of each user, which do not compete.
        temperature: The divisor of cosines.
        shard: Interactions per shard.
    """
    n, k = batch.users.size, user_factors.shape[1]
    for_users, for_items = np.empty((n, k), np.float32), np.empty((n, k), np.float32)
    for_drawn = np.empty((-(-n // shard), batch.drawn.size, k), np.float32)
    drawn = directions(item_factors[batch.drawn])
    columns = np.full(item_factors.shape[0], -1, dtype=np.int32)
    columns[batch.drawn] = np.arange(batch.drawn.size, dtype=np.int32)
    sharpness = np.float32(1 / temperature)

    def add(start: int, stop: int) -> None:
        rows = batch.users[start:stop]
        users, items = directions(user_factors[rows]), directions(item_factors[batch.items[start:stop]])
        # Divided by exp(1 / temperature), the largest possible value, no exponential overflows.
        odds = users @ drawn.T
        odds -= 1
        odds *= sharpness
        np.exp(odds, out=odds)
        _leave_out(odds, rows, seen, columns)
        own = np.exp((np.einsum("ij,ij->i", users, items) - 1) * sharpness)
        total = odds.sum(axis=1) + own
        odds *= (sharpness / total)[:, np.newaxis]
        own /= total
        own -= 1
        own *= sharpness
        np.multiply(items, own[:, np.newaxis], out=for_users[start:stop])
        for_users[start:stop] += odds @ drawn
        np.multiply(users, own[:, np.newaxis], out=for_items[start:stop])
        np.matmul(odds.T, users, out=for_drawn[start // shard])

    threads.run_in_blocks(add, n, shard)
    return Gradients(for_users, for_items, for_drawn.sum(axis=0))


@compiled
def _leave_out(odds: Float32, users: Int32, seen: SparseRows, columns: Int32) -> None:  # pragma: no cover  # compiled
    """Zero the odds, float32 (b, m), of seen items; `columns` holds the column of each item, or -1."""
    for row in range(users.size):
        for place in range(seen.indptr[users[row]], seen.indptr[users[row] + 1]):
            column = columns[seen.indices[place]]
            if column >= 0:
                odds[row, column] = 0


@compiled
def _step(
    rows: Int32,
    gradients: Float32,
    factors: Float32,
    means: Float32,
    squares: Float32,
    places: Int32,
    rate: np.float32,
) -> None:  # pragma: no cover  # compiled; tests/reference/softmax.py
    """Take a step of Adam for some rows; `places` is a buffer that holds -1 before and after."""
    k = factors.shape[1]
    new_mean, new_square, epsilon = np.float32(1 - BETA_1), np.float32(1 - BETA_2), np.float32(EPSILON)
    for m in range(rows.size):
        first = places[rows[m]]
        if first < 0:
            places[rows[m]] = m
        else:
            for f in range(k):
                gradients[first, f] += gradients[m, f]
    for m in range(rows.size):
        row = rows[m]
        if places[row] != m:
            continue
        square = along = np.float32(0)
        for f in range(k):
            square += factors[row, f] * factors[row, f]
            along += factors[row, f] * gradients[m, f]
        inverse = np.float32(1) / np.sqrt(square) if square > 0 else np.float32(1)
        along *= inverse * inverse
        for f in range(k):
            # The gradient by factors instead of their direction: without the part along them.
            gradient = (gradients[m, f] - along * factors[row, f]) * inverse
            means[row, f] += new_mean * (gradient - means[row, f])
            squares[row, f] += new_square * (gradient * gradient - squares[row, f])
            factors[row, f] -= rate * means[row, f] / (np.sqrt(squares[row, f]) + epsilon)
    for m in range(rows.size):
        places[rows[m]] = -1
