"""`slope_one` once more, slowly: dense, in float64, straight from the definition. Only tests use it."""

import numpy as np

from service.training.interactions import Float64


def deviations_slowly(table: Float64) -> tuple[Float64, Float64]:
    """Return dev(i, j), NaN where i and j share no user, and how many they share: float64 (n_items, n_items) each.

    Args:
        table: Float64 (n_users, n_items), the ratings; NaN where there is none.
    """
    n_items = table.shape[1]
    deviations, shared = np.full((n_items, n_items), np.nan), np.zeros((n_items, n_items))
    for i, j in np.ndindex(n_items, n_items):
        differences = table[:, i] - table[:, j]
        differences = differences[~np.isnan(differences)]
        if i != j and differences.size:
            deviations[i, j], shared[i, j] = differences.mean(), differences.size
    return deviations, shared


def predict_slowly(table: Float64, deviations: Float64) -> Float64:
    """Return the predicted rating of every pair, not clipped: float64 (n_users, n_items).

    Args:
        table: Float64 (n_users, n_items), the ratings; NaN where there is none.
        deviations: Float64 (n_items, n_items), dev(i, j); NaN where j says nothing of i.
    """
    predicted = np.full(table.shape, np.nanmean(table))
    for u in np.flatnonzero(~np.isnan(table).all(axis=1)):
        predicted[u] = np.nanmean(table[u])
        for i in range(table.shape[1]):
            said = deviations[i, ~np.isnan(table[u])]
            said = said[~np.isnan(said)]
            if said.size:
                predicted[u, i] += said.mean()
    return predicted
