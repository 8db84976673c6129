"""Reference of `ials` and `kernels.ridge`: dense, in float64, without rotations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.ials import IalsConfig, first_table, sides, unobserved_weight
from service.training.interactions import Float64, Interactions


def fit_slowly(data: Interactions, config: IalsConfig, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Return the expected factors of users and items, float64, after exact half epochs; `block_size` is ignored."""
    weight = unobserved_weight(data, config)
    users, items = (first_table(side, config, rng).astype(np.float64) for side in sides(data, weight, config))
    confidences = _confidences(data, config)
    for _ in range(config.n_epochs):
        users = _turn(confidences, items, weight, config)
        items = _turn(confidences.T, users, weight, config)
    return users, items


def loss(data: Interactions, config: IalsConfig, users: NDArray[Any], items: NDArray[Any]) -> float:
    """Return the loss of the docstring of `ials`."""
    weight = unobserved_weight(data, config)
    confidences = _confidences(data, config)
    users, items = users.astype(np.float64), items.astype(np.float64)
    scores = users @ items.T
    fitting = float(np.sum(confidences * (scores - 1) ** 2) + weight * np.sum(scores**2))
    for seen, table in ((confidences > 0, users), (confidences.T > 0, items)):
        penalties = config.reg * (seen.sum(axis=1) + weight * seen.shape[1]) ** config.reg_exp
        fitting += float(np.sum(penalties * np.sum(table**2, axis=1)))
    return fitting


def sweep_slowly(
    table: Float64, scales: Float64, spectrum: Float64, penalty: float, start: Float64, block_size: int
) -> Float64:
    """Return a row's factors after one Newton step per block, float64 (k,).

    Args:
        table: Float64 (n, k), the factors of the row's partners.
        scales: Float64 (n,), square roots of confidences.
        spectrum: Float64 (k,), added to the diagonal.
        penalty: Added to the diagonal.
        start: Float64 (k,), the previous factors.
        block_size: Factors per step.
    """
    factors = start.copy()
    weighted = table * scales[:, np.newaxis] ** 2
    for first in range(0, factors.size, block_size):
        block = slice(first, first + block_size)
        gradient = weighted[:, block].T @ (table @ factors - 1) + (spectrum + penalty)[block] * factors[block]
        hessian = weighted[:, block].T @ table[:, block] + np.diag((spectrum + penalty)[block])
        factors[block] -= np.linalg.solve(hessian, gradient)
    return factors


def _confidences(data: Interactions, config: IalsConfig) -> Float64:
    """Return float64 (n_users, n_items), 0 where there is no interaction."""
    confidences = np.zeros((len(data.users), len(data.items)))
    by_rating = data.ratings / data.ratings.mean(dtype=np.float64)
    confidences[data.user_rows, data.item_rows] = 1 if config.confidence == "ones" else by_rating
    return confidences


def _turn(confidences: Float64, fixed: Float64, weight: float, config: IalsConfig) -> Float64:
    k = fixed.shape[1]
    solved = np.zeros((confidences.shape[0], k))
    for row, own in enumerate(confidences):
        if own.any():
            penalty = config.reg * (np.count_nonzero(own) + weight * own.size) ** config.reg_exp
            system = weight * fixed.T @ fixed + (fixed * own[:, np.newaxis]).T @ fixed + penalty * np.eye(k)
            solved[row] = np.linalg.solve(system, fixed.T @ own)
    return solved
