"""Reference of `slope_one`: dense, in float64, from the definition."""

import numpy as np

from service.training.interactions import Float64


def deviations_slowly(table: Float64) -> tuple[Float64, Float64]:
    """Return dev(i, j), NaN without common users, and the number of common users: float64 (n_items, n_items)."""
    n_items = table.shape[1]
    deviations, shared = np.full((n_items, n_items), np.nan), np.zeros((n_items, n_items))
    for i, j in np.ndindex(n_items, n_items):
        differences = table[:, i] - table[:, j]
        differences = differences[~np.isnan(differences)]
        if i != j and differences.size:
            deviations[i, j], shared[i, j] = differences.mean(), differences.size
    return deviations, shared


def predict_slowly(table: Float64, deviations: Float64) -> Float64:
    """Return the predicted rating of every pair, not clipped, from ratings with NaN for none: float64."""
    predicted = np.full(table.shape, np.nanmean(table))
    for u in np.flatnonzero(~np.isnan(table).all(axis=1)):
        predicted[u] = np.nanmean(table[u])
        for i in range(table.shape[1]):
            known = deviations[i, ~np.isnan(table[u])]
            known = known[~np.isnan(known)]
            if known.size:
                predicted[u, i] += known.mean()
    return predicted
