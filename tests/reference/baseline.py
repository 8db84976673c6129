"""Reference of `baseline`: one step at a time, on a dense table."""

import numpy as np
from scipy.sparse import csr_array

from service.training.algorithms.baseline import Baseline, BaselineConfig, shuffled_by_user
from service.training.interactions import Float64


def estimate_slowly(table: Float64, config: BaselineConfig) -> Baseline:
    """Return the expected result of `baseline.estimate` for ratings, float64 (n_users, n_items) with NaN for none."""
    is_rated = ~np.isnan(table)
    mean = float(table[is_rated].mean())
    b_user, b_item = np.zeros(len(table)), np.zeros(table.shape[1])
    if config.method == "als":
        for _ in range(config.n_epochs or 10):
            for i in np.flatnonzero(is_rated.any(axis=0)):
                raters = np.flatnonzero(is_rated[:, i])
                b_item[i] = np.sum(table[raters, i] - mean - b_user[raters]) / (config.reg_i + raters.size)
            for u in np.flatnonzero(is_rated.any(axis=1)):
                rated = np.flatnonzero(is_rated[u])
                b_user[u] = np.sum(table[u, rated] - mean - b_item[rated]) / (config.reg_u + rated.size)
    else:
        order = shuffled_by_user(csr_array(is_rated))
        for _ in range(config.n_epochs or 20):
            for u, i in np.argwhere(is_rated)[order]:
                error = table[u, i] - (mean + b_user[u] + b_item[i])
                b_user[u] += config.learning_rate * (error - config.reg * b_user[u])
                b_item[i] += config.learning_rate * (error - config.reg * b_item[i])
    return Baseline(mean, b_user, b_item)
