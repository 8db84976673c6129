"""Reference of `pure_svd`: a dense singular value decomposition in float64."""

import numpy as np

from service.training.algorithms.pure_svd import PureSvdConfig
from service.training.interactions import Float64, Interactions


def normalised(data: Interactions, config: PureSvdConfig) -> Float64:
    """Return D_u^-a R D_i^-b, float64 (n_users, n_items)."""
    seen = liked_table(data, config)
    of_users, of_items = seen.sum(axis=1), seen.sum(axis=0)
    table = np.zeros_like(seen)
    for user, item in np.argwhere(seen):
        table[user, item] = of_users[user] ** -config.user_exponent * of_items[item] ** -config.item_exponent
    return table


def scores(data: Interactions, config: PureSvdConfig, k: int) -> Float64:
    """Return the expected scores, float64 (n_users, n_items), of the model with k factors."""
    seen = liked_table(data, config)
    _, values, vectors = np.linalg.svd(normalised(data, config), full_matrices=False)
    kept = vectors[:k][values[:k] > 1e-9 * values[0]].T
    of_items = seen.sum(axis=0)
    damped, raised = np.zeros_like(kept), np.zeros_like(kept)
    for item in np.flatnonzero(of_items):
        damped[item] = of_items[item] ** -config.item_exponent * kept[item]
        raised[item] = of_items[item] ** config.item_exponent * kept[item]
    result: Float64 = weighted_table(data, config) @ damped @ raised.T
    return result


def weighted_table(data: Interactions, config: PureSvdConfig) -> Float64:
    """Return the weights of interactions, float64 (n_users, n_items); of equal times the later position is later."""
    assert data.timestamps is not None
    times_s = data.timestamps.tolist()
    table = np.zeros((len(data.users), len(data.items)))
    half_life = 4.0 if config.half_life is None else config.half_life
    least = data.rating_min + config.dislike_below * (data.rating_max - data.rating_min)
    for user in range(len(data.users)):
        positions = [position for position in range(len(data)) if data.user_rows[position] == user]
        positions.sort(key=lambda position: (times_s[position], position), reverse=True)
        for later, position in enumerate(positions):
            weight = config.dislike_weight if data.ratings[position] < least else 1.0
            table[user, data.item_rows[position]] = weight * (0.5 ** (later / half_life) if half_life else 1.0)
    return table


def liked_table(data: Interactions, config: PureSvdConfig) -> Float64:
    """Return the interactions that are no dislikes as ones, float64 (n_users, n_items)."""
    liked: Float64 = (weighted_table(data, config) > 0).astype(np.float64)
    return liked


def seen_table(data: Interactions) -> Float64:
    """Return the histories as zeros and ones, float64 (n_users, n_items)."""
    seen = np.zeros((len(data.users), len(data.items)))
    seen[data.user_rows, data.item_rows] = 1
    return seen
