"""Steps of stochastic gradient descent on a biased matrix factorisation, the inner loop of `svd`."""

import numpy as np

from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.factors.training import FactorTables
from service.training.algorithms.kernels.factors.vectors import AHEAD, prefetch, product
from service.training.algorithms.kernels.factors.visit_order import VisitedRatings
from service.training.interactions import Float32


@compiled
def visit_ratings(
    start: int,
    stop: int,
    ratings: VisitedRatings,
    tables: FactorTables,
    mean: np.float32,
    steps: Float32,
    biased: bool,  # noqa: FBT001  # numba kernels take their arguments by position
) -> float:  # pragma: no cover  # compiled; tests/reference/svd.py
    """Visit ratings start to stop; return the sum of squared errors before each step. Rows are in whole lanes."""
    lr_bu, lr_bi, lr_pu, lr_qi = steps[0], steps[1], steps[2], steps[3]
    reg_bu, reg_bi, reg_pu, reg_qi = steps[4], steps[5], steps[6], steps[7]
    users, items, values = ratings
    user_factors, item_factors, user_bias, item_bias = tables
    width = user_factors.shape[1]
    squared_error = 0.0
    for n in range(start, stop):
        u, i = users[n], items[n]
        if n + AHEAD < stop:
            prefetch(item_factors, items[n + AHEAD])
            if users[n + AHEAD] != users[n + AHEAD - 1]:
                prefetch(user_factors, users[n + AHEAD])
        affinity = product(user_factors, u, item_factors, i)
        error = values[n] - (mean + user_bias[u] + item_bias[i] + affinity)
        squared_error += error * error
        if biased:
            user_bias[u] += lr_bu * (error - reg_bu * user_bias[u])
            item_bias[i] += lr_bi * (error - reg_bi * item_bias[i])
        for f in range(width):
            p, q = user_factors[u, f], item_factors[i, f]
            user_factors[u, f] = p + lr_pu * (error * q - reg_pu * p)
            item_factors[i, f] = q + lr_qi * (error * p - reg_qi * q)
    return squared_error
