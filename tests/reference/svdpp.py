"""Reference of `svdpp`: every y_j of a user changes at every rating, in float64."""

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.kernels.factors.training import FactorTables, learning_rates
from service.training.algorithms.svdpp import PARAMETERS, SvdppConfig, first_tables
from service.training.interactions import Interactions


def fit_slowly(data: Interactions, config: SvdppConfig, rng: np.random.Generator) -> tuple[float, FactorTables]:
    """Return the expected mean and tables, rounded to float32, of `svdpp.fit` for data without unrated rows."""
    visiting = visit_order.user_by_user(data, rng)
    first, first_implicit = first_tables(data, config, rng)
    k = config.n_factors
    p: NDArray[np.float64] = first.user_factors[:, :k].astype(np.float64)
    q: NDArray[np.float64] = first.item_factors[:, :k].astype(np.float64)
    y: NDArray[np.float64] = first_implicit[:, :k].astype(np.float64)
    b_user, b_item = np.zeros(len(p)), np.zeros(len(q))
    mean = float(data.ratings.mean())
    rated = [data.item_rows[data.user_rows == user] for user in range(len(p))]
    steps = learning_rates(config, PARAMETERS).astype(np.float64)
    lr_bu, lr_bi, lr_pu, lr_qi, lr_yj, reg_bu, reg_bi, reg_pu, reg_qi, reg_yj = steps
    for _ in range(config.n_epochs):
        for u, i, rating in zip(*visiting.ratings, strict=True):
            z = y[rated[u]].sum(axis=0) / np.sqrt(rated[u].size)
            error = rating - (mean + b_user[u] + b_item[i] + q[i] @ (p[u] + z))
            b_user[u] += lr_bu * (error - reg_bu * b_user[u])
            b_item[i] += lr_bi * (error - reg_bi * b_item[i])
            y[rated[u]] += lr_yj * (error * q[i] / np.sqrt(rated[u].size) - reg_yj * y[rated[u]])
            p[u], q[i] = (
                p[u] + lr_pu * (error * q[i] - reg_pu * p[u]),
                q[i] + lr_qi * (error * (p[u] + z) - reg_qi * q[i]),
            )
    served = np.array([p[u] + y[rated[u]].sum(axis=0) / np.sqrt(rated[u].size) for u in range(len(p))])
    rounded = (table.astype(np.float32) for table in (served, q, b_user, b_item))
    return mean, FactorTables(*rounded)
