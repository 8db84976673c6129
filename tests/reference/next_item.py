"""Reference of `next_item`: every input vector written out, one target at a time."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from service.models.history.user_history import UserHistory
from service.models.history.weights import HistoryWeights
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights

Table = NDArray[np.float64]


def statistics(model: ModelSnapshot, weights: HistoryWeights, how: PairWeights) -> tuple[Table, Table]:
    """Return G and C of `decayed_pairs`, float64 (n_items, n_items) each, from the histories of a model."""
    n_items = len(model.items)
    gram, cross = np.zeros((n_items, n_items)), np.zeros((n_items, n_items))
    for user_row in range(len(model.users)):
        history = model.user_history(user_row)
        n = history.rows.size
        # A low rating counts as any other here.
        signal = dataclasses.replace(weights, dislike_below=None).of_events(history.values, history.types)
        # weight[p, t] of interaction p among the inputs of interaction t
        weight = np.zeros((n, n))
        for t in range(1, n):
            inputs = range(max(0, t - how.window), t)
            weight[inputs, t] = recency(weights, history, t)[list(inputs)]
            x = np.zeros(n_items)
            x[history.rows[inputs]] = weight[inputs, t] * signal[inputs]
            gram += np.outer(x, x)
        for p in range(n):
            for q in range(p + 1, min(n, p + how.window + 1)):
                pair = sum((1 - how.look_ahead) * how.look_ahead ** (q - t) * weight[p, t] for t in range(p + 1, q + 1))
                earlier, later = history.rows[p], history.rows[q]
                cross[earlier, later] += pair * signal[p] * max(0.0, signal[q])
                cross[later, earlier] += how.reverse * pair * signal[q] * max(0.0, signal[p])
    return gram, cross


def recency(weights: HistoryWeights, history: UserHistory, t: int) -> Table:
    """Return the recency of the interactions before t, float64 (t,), as fold-in gives it."""
    before = UserHistory(*(None if column is None else column[:t] for column in history))  # type: ignore[arg-type]
    plain = HistoryWeights(
        half_life=weights.half_life,
        half_life_days=weights.half_life_days,
        long_half_life=weights.long_half_life,
        long_weight=weights.long_weight,
    )
    return plain.of(before)


def lists(gram: Table, cross: Table, penalties: Table, scales: Table, n_kept: int, *, by_target: bool) -> Table:
    """Return the kept weights, float64 (n_items, n_items), inputs by targets.

    Args:
        by_target: Whether the inputs of a target are those that precede it, and itself; else all items.
    """
    weights = np.linalg.solve(gram + np.diag(penalties), cross) * scales
    if by_target:
        for target in range(len(weights)):
            inputs = np.union1d(np.flatnonzero(cross[:, target] > 0), [target])
            system = gram[np.ix_(inputs, inputs)] + np.diag(penalties[inputs])
            weights[:, target] = 0
            weights[inputs, target] = np.linalg.solve(system, cross[inputs, target]) * scales[target]
    np.fill_diagonal(weights, 0)
    kept: Table = np.zeros_like(weights)
    for item, row in enumerate(weights):
        largest = np.argsort(-np.abs(row), kind="stable")[:n_kept]
        kept[item, largest] = row[largest]
    return kept


def in_basis(gram: Table, cross: Table, penalties: Table, basis: NDArray[np.float32]) -> Table:
    """Return the weights of inputs by targets within the column space of a basis: float64 (n_items, n_items)."""
    table = basis.astype(np.float64)
    system = table.T @ (gram + np.diag(penalties)) @ table
    weights: Table = table @ np.linalg.solve(system, table.T @ cross)
    return weights
