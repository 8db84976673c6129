"""Biased matrix factorisation by stochastic gradient descent, called SVD since the Netflix Prize.

The prediction is mu + b_u + b_i + p_u . q_i. For each rating r in turn, with e = r - prediction,

    b_u += lr_bu (e - reg_bu b_u)        p_u += lr_pu (e q_i - reg_pu p_u)
    b_i += lr_bi (e - reg_bi b_i)        q_i += lr_qi (e p_u - reg_qi q_i)

where both factor updates use the values before the step (S. Funk, "Netflix Update: Try This at Home", 2006; Koren, Bell
and Volinsky, "Matrix factorization techniques for recommender systems", Computer 42(8), 2009). Names and defaults of
the hyperparameters are those of scikit-surprise's SVD. tests/reference/svd.py is the slow equivalent.

Invariant: the result depends on data, hyperparameters and generator alone, not on threads or the vector width of the
processor. Ratings are ordered in a grid (`visit_order.in_grid`), user by user within a block, which keeps p_u in cache.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np

from service.models.snapshot import ModelSnapshot
from service.training.algorithms import rating_fold_in
from service.training.algorithms.kernels import visit_order
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.factor_training import (
    DescentConfig,
    FactorTables,
    build_snapshot,
    draw_normal,
    learning_rates,
    run_epochs,
    zero_bias_tables,
)
from service.training.algorithms.kernels.rating_unit import in_unit, unit_of
from service.training.algorithms.kernels.vectors import AHEAD, prefetch, product
from service.training.algorithms.kernels.visit_order import VisitedRatings
from service.training.algorithms.registry import Algorithm
from service.training.interactions import Float32, Interactions, Progress

NAME: Final = "svd"
PARAMETERS: Final = ("bu", "bi", "pu", "qi")


@dataclass(frozen=True)
class SvdConfig(DescentConfig):
    """Hyperparameters of SVD."""

    biased: Annotated[bool, {}, "Whether to learn a mean and biases too; without them it is PMF."] = True


def fit(
    data: Interactions,
    config: SvdConfig,
    rng: np.random.Generator,
    progress: Progress,
    *,
    min_grid_ratings: int = visit_order.MIN_GRID_RATINGS,
) -> ModelSnapshot:
    """Fit SVD, on all cores from `min_grid_ratings` on.

    Raises:
        TrainingDiverged: Errors or factors are no longer finite.
    """
    unit = unit_of(data.rating_min, data.rating_max)
    rescaled = in_unit(data, unit)
    visiting = visit_order.in_grid(rescaled, rng, min_grid_ratings)
    tables = first_tables(data, config, rng)
    mean = np.float32(rescaled.ratings.mean(dtype=np.float64) if config.biased else 0.0)
    steps = learning_rates(config, PARAMETERS)

    def visit(start: int, stop: int) -> float:
        return _visit(start, stop, visiting.ratings, tables, mean, steps, config.biased)

    run_epochs(NAME, data, config, lambda: visiting.epoch(visit), progress)
    how = rating_fold_in.of_descent(config, unit, biased=config.biased)
    return build_snapshot(NAME, data, config, tables, float(mean), unit, how)


ALGORITHMS: Final = {NAME: Algorithm(SvdConfig, fit)}


def first_tables(data: Interactions, config: SvdConfig, rng: np.random.Generator) -> FactorTables:
    """Draw the initial factors; biases start at zero."""
    users, items = (
        draw_normal(len(rows), config.n_factors, config.init_mean, config.init_std_dev, rng)
        for rows in (data.users, data.items)
    )
    return zero_bias_tables(users, items)


@compiled
def _visit(
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
