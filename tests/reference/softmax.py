"""Reference of `softmax`: one interaction at a time, in float64."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from service.training.algorithms.softmax.softmax import (
    BETA_1,
    BETA_2,
    EPSILON,
    MiniBatch,
    SoftmaxConfig,
    draw,
    first_factors,
)
from service.training.assembly import assemble
from service.training.interactions import Float64, Interactions


def loss(batch: MiniBatch, seen: NDArray[np.bool_], users: Float64, items: Float64, temperature: float) -> float:
    """Return the loss of a batch, given seen, bool (n_users, n_items), and factors (n_users, k) and (n_items, k)."""
    total = 0.0
    for user, item in zip(batch.users, batch.items, strict=True):
        competitors = [item, *(j for j in batch.drawn if not seen[user, j])]
        cosines = np.array([_cosine(users[user], items[j]) for j in competitors])
        total -= cosines[0] / temperature - np.log(np.exp(cosines / temperature).sum())
    return float(total)


def fit_slowly(data: Interactions, config: SoftmaxConfig, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Return the expected factors of users and items of `softmax.fit`, float64, not normalised."""
    tables = [first_factors(n, config, rng).astype(np.float64) for n in (len(data.users), len(data.items))]
    means, squares = ([np.zeros_like(table) for table in tables] for _ in range(2))
    seen = np.zeros((len(data.users), len(data.items)), dtype=bool)
    seen[data.user_rows, data.item_rows] = True
    catalogue = np.flatnonzero(seen.any(axis=0)).astype(np.int32)
    n_batches = -(-len(data) // config.batch_size)
    n_steps = 0
    for _ in range(config.n_epochs):
        order = rng.permutation(len(data))
        for visited in np.split(order, range(config.batch_size, len(data), config.batch_size)):
            drawn = draw(catalogue, config.n_negatives, rng)
            batch = MiniBatch(data.user_rows[visited], data.item_rows[visited], drawn)
            rate = config.lr * (1 - n_steps / (config.n_epochs * n_batches))
            n_steps += 1
            gradients = _gradients(batch, seen, tables[0], tables[1], config.temperature)
            for table, mean, square, of_rows in zip(tables, means, squares, gradients, strict=True):
                for row, gradient in of_rows.items():
                    mean[row] = BETA_1 * mean[row] + (1 - BETA_1) * gradient
                    square[row] = BETA_2 * square[row] + (1 - BETA_2) * gradient**2
                    step = np.sqrt(1 - BETA_2**n_steps) / (1 - BETA_1**n_steps) * mean[row]
                    table[row] -= rate * step / (np.sqrt(square[row]) + EPSILON)
    return tables[0], tables[1]


def users_slowly(data: Interactions, config: SoftmaxConfig, items: Float64) -> Float64:
    """Return the expected factors of users, given those of all items, each with interactions: float64 (n_users, k)."""
    snapshot = assemble(data, "softmax", config)
    histories = [snapshot.user_history(row) for row in range(len(data.users))]
    mean, covariance = items.mean(axis=0), np.cov(items.T, bias=True)
    means = np.array([items[own.rows].mean(axis=0) - mean for own in histories])

    def solved(penalty: float, vectors: Float64) -> Float64:
        system = covariance + penalty * np.eye(mean.size)
        return np.asarray(config.temperature * np.linalg.solve(system, vectors.T).T, dtype=np.float64)

    def excess(log_penalty: float) -> float:
        return float(np.square(solved(np.exp(log_penalty), means)).sum(axis=1).mean()) - 1

    penalty = np.exp(brentq(excess, np.log(1e-6), np.log(1e6), xtol=1e-12)) if excess(np.log(1e-6)) > 0 else 1e-6
    weights = [config.history_weights(data).of(own) for own in histories]
    weighted = np.array(
        [w @ (items[own.rows] - mean) / np.abs(w).sum() for own, w in zip(histories, weights, strict=True)]
    )
    return solved(penalty, weighted)


def _gradients(
    batch: MiniBatch, seen: NDArray[np.bool_], users: Float64, items: Float64, temperature: float
) -> tuple[dict[int, Float64], dict[int, Float64]]:
    """Differentiate the loss by the factors of each user and each item of the batch."""
    k = users.shape[1]
    of_users, of_items = (defaultdict[int, Float64](lambda: np.zeros(k)) for _ in range(2))
    for item in batch.drawn:
        of_items[int(item)] += 0
    for user, item in zip(batch.users.tolist(), batch.items.tolist(), strict=True):
        competitors = [item, *(j for j in batch.drawn.tolist() if not seen[user, j])]
        cosines = np.array([_cosine(users[user], items[j]) for j in competitors])
        odds = np.exp(cosines / temperature)
        slopes = odds / odds.sum() / temperature
        slopes[0] -= 1 / temperature
        w, w_length = users[user], np.linalg.norm(users[user])
        for j, cosine, slope in zip(competitors, cosines, slopes, strict=True):
            h, h_length = items[j], np.linalg.norm(items[j])
            of_users[user] += slope * (h / h_length - cosine * w / w_length) / w_length
            of_items[j] += slope * (w / w_length - cosine * h / h_length) / h_length
    return of_users, of_items


def _cosine(w: Float64, h: Float64) -> float:
    return float(w @ h / (np.linalg.norm(w) * np.linalg.norm(h)))
