"""Reference of `ials` and `kernels.sparse.ridge`: dense, in float64, without rotations."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.ials.ials import IalsConfig, first_table, mean_of_ratings, unobserved_weight
from service.training.algorithms.ials.rows import Confidences, RowInteractions
from service.training.assembly import assemble, history_entries
from service.training.entry_weights import entry_weights, undecayed
from service.training.interactions import Float64, Interactions


def fit_slowly(data: Interactions, config: IalsConfig, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Return the expected factors of users and items, float64, after exact half epochs; `block_size` is ignored."""
    weight = unobserved_weight(data, config)
    learnt, served = (_confidences(data, config, recency=recency) for recency in (False, True))
    sides = sides_of(data, config)
    users, items = (first_table(side, config, rng).astype(np.float64) for side in sides)
    for _ in range(config.n_epochs):
        users = _turn(learnt, items, weight, config)
        items = _turn(Dense(learnt.weights.T, learnt.confidences.T), users, weight, config)
    return _turn(served, items, weight, config), items


def sides_of(data: Interactions, config: IalsConfig) -> tuple[RowInteractions, RowInteractions]:
    """Return the interactions by user and by item, as `fit` groups them."""
    entries, weights = history_entries(data), undecayed(config.history_weights(data))
    mean_rating = mean_of_ratings(data, config)
    found = Confidences.of(entries, entry_weights(entries, weights), unobserved_weight(data, config), mean_rating)
    return found.user_side(config.reg, config.reg_exp), found.item_side(config.reg, config.reg_exp)


def loss(data: Interactions, config: IalsConfig, users: NDArray[Any], items: NDArray[Any]) -> float:
    """Return the loss of the docstring of `ials`."""
    weight = unobserved_weight(data, config)
    weights, confidences = _confidences(data, config, recency=False)
    users, items = users.astype(np.float64), items.astype(np.float64)
    scores = users @ items.T
    fitting = float(np.sum(np.abs(confidences) * (scores - np.sign(confidences)) ** 2) + weight * np.sum(scores**2))
    for own, table in ((np.abs(weights), users), (np.abs(weights).T, items)):
        penalties = config.reg * (own.sum(axis=1) + weight * own.shape[1]) ** config.reg_exp
        fitting += float(np.sum(penalties * np.sum(table**2, axis=1)))
    return fitting


def sweep_slowly(
    table: Float64, scales: Float64, spectrum: Float64, penalty: float, start: Float64, block_size: int
) -> Float64:
    """Return a row's factors after one Newton step per block, float64 (k,).

    Args:
        table: Float64 (n, k), the factors of the row's partners.
        scales: Float64 (n,), square roots of confidences, negative where -1 is wanted.
        spectrum: Float64 (k,), added to the diagonal.
        penalty: Added to the diagonal.
        start: Float64 (k,), the previous factors.
        block_size: Factors per step.
    """
    factors = start.copy()
    weighted = table * scales[:, np.newaxis] ** 2
    for first in range(0, factors.size, block_size):
        block = slice(first, first + block_size)
        gradient = (
            weighted[:, block].T @ (table @ factors - np.sign(scales)) + (spectrum + penalty)[block] * factors[block]
        )
        hessian = weighted[:, block].T @ table[:, block] + np.diag((spectrum + penalty)[block])
        factors[block] -= np.linalg.solve(hessian, gradient)
    return factors


class Dense(NamedTuple):
    """Weights and confidences, both float64 (n, m), 0 where there is no interaction."""

    weights: Float64
    confidences: Float64


def _confidences(data: Interactions, config: IalsConfig, *, recency: bool) -> Dense:
    """Weigh the interactions of users one by one, with or without recency: float64 (n_users, n_items) each."""
    snapshot = assemble(data, "ials", config)
    weights, values = (np.zeros((len(data.users), len(data.items))) for _ in range(2))
    how = config.history_weights(data)
    mean = data.ratings.mean(dtype=np.float64)
    for user_row in range(len(data.users)):
        own = snapshot.user_history(user_row)
        found = (how if recency else undecayed(how)).of(own)
        weights[user_row, own.rows] = found
        relative = own.values / mean if config.confidence == "ratings" else 1.0
        values[user_row, own.rows] = np.where(found > 0, found * relative, found)
    return Dense(weights, values)


def _turn(side: Dense, fixed: Float64, weight: float, config: IalsConfig) -> Float64:
    k = fixed.shape[1]
    solved = np.zeros((side.weights.shape[0], k))
    for row, (weights, own) in enumerate(zip(*side, strict=True)):
        if own.any():
            penalty = config.reg * (np.abs(weights).sum() + weight * own.size) ** config.reg_exp
            system = weight * fixed.T @ fixed + (fixed * np.abs(own)[:, np.newaxis]).T @ fixed + penalty * np.eye(k)
            solved[row] = np.linalg.solve(system, fixed.T @ own)
    return solved
