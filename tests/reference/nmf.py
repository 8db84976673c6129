"""Reference of `nmf`: the formulas of its docstring over whole tables, in float64."""

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.kernels.factors.training import FactorTables
from service.training.algorithms.nmf import NmfConfig, first_tables
from service.training.interactions import Interactions


def fit_slowly(data: Interactions, config: NmfConfig, rng: np.random.Generator) -> tuple[float, FactorTables]:
    """Return the expected mean and tables, rounded to float32, of `nmf.fit` for positive ratings in all rows."""
    visiting = visit_order.user_by_user(data, rng)
    first = first_tables(data, config, rng)
    p: NDArray[np.float64] = first.user_factors[:, : config.n_factors].astype(np.float64)
    q: NDArray[np.float64] = first.item_factors[:, : config.n_factors].astype(np.float64)
    b_user, b_item = np.zeros(len(p)), np.zeros(len(q))
    mean = float(data.ratings.mean()) if config.biased else 0.0
    rated, predicted = np.zeros((2, len(p), len(q)))
    has_rated = np.zeros((len(p), len(q)))
    has_rated[data.user_rows, data.item_rows] = 1
    rated[data.user_rows, data.item_rows] = data.ratings
    for _ in range(config.n_epochs):
        for u, i, rating in zip(*visiting.ratings, strict=True):
            predicted[u, i] = mean + b_user[u] + b_item[i] + p[u] @ q[i]
            error = rating - predicted[u, i]
            if config.biased:
                b_user[u] += config.lr_bu * (error - config.reg_bu * b_user[u])
                b_item[i] += config.lr_bi * (error - config.reg_bi * b_item[i])
        n_u, n_i = has_rated.sum(axis=1)[:, np.newaxis], has_rated.sum(axis=0)[:, np.newaxis]
        p, q = (
            p * (rated @ q) / (predicted @ q + n_u * config.reg_pu * p),
            q * (rated.T @ p) / (predicted.T @ p + n_i * config.reg_qi * q),
        )
    rounded = (table.astype(np.float32) for table in (p, q, b_user, b_item))
    return mean, FactorTables(*rounded)
