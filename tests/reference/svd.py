"""Reference of `svd`: one step at a time, in float64."""

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.kernels.factors.training import FactorTables, learning_rates
from service.training.algorithms.svd import PARAMETERS, SvdConfig, first_tables
from service.training.interactions import Interactions


def fit_slowly(
    data: Interactions,
    config: SvdConfig,
    rng: np.random.Generator,
    min_grid_ratings: int = visit_order.MIN_GRID_RATINGS,
) -> tuple[float, FactorTables]:
    """Return the expected mean and tables, rounded to float32, of `svd.fit` for data without unrated rows."""
    visiting = visit_order.in_grid(data, rng, min_grid_ratings, config.n_groups)
    first = first_tables(data, config, rng)
    p: NDArray[np.float64] = first.user_factors[:, : config.n_factors].astype(np.float64)
    q: NDArray[np.float64] = first.item_factors[:, : config.n_factors].astype(np.float64)
    b_user, b_item = np.zeros(len(p)), np.zeros(len(q))
    mean = float(data.ratings.mean()) if config.biased else 0.0
    lr_bu, lr_bi, lr_pu, lr_qi, reg_bu, reg_bi, reg_pu, reg_qi = learning_rates(config, PARAMETERS).astype(np.float64)
    for _ in range(config.n_epochs):
        for u, i, rating in zip(*visiting.ratings, strict=True):
            error = rating - (mean + b_user[u] + b_item[i] + p[u] @ q[i])
            if config.biased:
                b_user[u] += lr_bu * (error - reg_bu * b_user[u])
                b_item[i] += lr_bi * (error - reg_bi * b_item[i])
            p[u], q[i] = p[u] + lr_pu * (error * q[i] - reg_pu * p[u]), q[i] + lr_qi * (error * p[u] - reg_qi * q[i])
    rounded = (table.astype(np.float32) for table in (p, q, b_user, b_item))
    return mean, FactorTables(*rounded)
