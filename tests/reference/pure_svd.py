"""Reference of `pure_svd`: a dense singular value decomposition in float64."""

import numpy as np

from service.training.algorithms.pure_svd import PureSvdConfig
from service.training.interactions import Float64, Interactions


def normalised(data: Interactions, config: PureSvdConfig) -> Float64:
    """Return D_u^-a R D_i^-b, float64 (n_users, n_items)."""
    seen = seen_table(data)
    of_users, of_items = seen.sum(axis=1), seen.sum(axis=0)
    table = np.zeros_like(seen)
    for user, item in np.argwhere(seen):
        table[user, item] = of_users[user] ** -config.user_exponent * of_items[item] ** -config.item_exponent
    return table


def scores(data: Interactions, config: PureSvdConfig, k: int) -> Float64:
    """Return the expected scores, float64 (n_users, n_items), of the model with k factors."""
    seen = seen_table(data)
    _, values, vectors = np.linalg.svd(normalised(data, config), full_matrices=False)
    kept = vectors[:k][values[:k] > 1e-9 * values[0]].T
    of_items = seen.sum(axis=0)
    damped, raised = np.zeros_like(kept), np.zeros_like(kept)
    for item in np.flatnonzero(of_items):
        damped[item] = of_items[item] ** -config.item_exponent * kept[item]
        raised[item] = of_items[item] ** config.item_exponent * kept[item]
    result: Float64 = seen @ damped @ raised.T
    return result


def seen_table(data: Interactions) -> Float64:
    """Return the histories as zeros and ones, float64 (n_users, n_items)."""
    seen = np.zeros((len(data.users), len(data.items)))
    seen[data.user_rows, data.item_rows] = 1
    return seen
