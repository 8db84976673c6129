"""SVD++: biased matrix factorisation that also uses which items a user rated, whatever the ratings.

The prediction is mu + b_u + b_i + q_i . (p_u + z_u), where z_u is |N(u)|^-1/2 times the sum of y_j over N(u), the items
rated by u. For each rating r in turn, with e = r - prediction,

    b_u += lr_bu (e - reg_bu b_u)        p_u += lr_pu (e q_i - reg_pu p_u)
    b_i += lr_bi (e - reg_bi b_i)        q_i += lr_qi (e (p_u + z_u) - reg_qi q_i)
    y_j += lr_yj (e |N(u)|^-1/2 q_i - reg_yj y_j)  for every j in N(u)

where all updates use the values before the step (Y. Koren, "Factorization meets the neighborhood", KDD 2008). Names and
defaults of the hyperparameters are those of scikit-surprise's SVDpp. tests/reference/svdpp.py is the slow equivalent.

Direct updates of y_j cost |N(u)| k operations per rating. But all y_j of a user take the same step apart from the
decay: since |N(u)|^-1/2 |N(u)|^-1/2 summed over N(u) is 1, a rating takes z_u to (1 - lr_yj reg_yj) z_u + lr_yj e q_i.
With d = (1 - lr_yj reg_yj)^|N(u)|, after all ratings of a user z_u has gained g = z_u - d z_u(before), and each y_j
becomes d y_j(before) + |N(u)|^-1/2 g. A rating therefore costs k operations, with the same result up to rounding.

Invariant: the result depends on data, hyperparameters and generator alone. One core visits the ratings user by user:
the step above needs all ratings of a user at once, and users share items.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np

from service.models.snapshot import ModelSnapshot
from service.training.algorithms import rating_fold_in
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.kernels.factors.rating_unit import in_unit, unit_of
from service.training.algorithms.kernels.factors.training import (
    DescentConfig,
    FactorTables,
    build_snapshot,
    draw_normal,
    learning_rates,
    run_epochs,
    zero_bias_tables,
)
from service.training.algorithms.kernels.factors.vectors import AHEAD, prefetch, product
from service.training.algorithms.kernels.factors.visit_order import VisitedRatings
from service.training.algorithms.registry import Algorithm
from service.training.checkpoints.table import TableCheckpoint
from service.training.interactions import Float32, Int32, Interactions, Progress

NAME: Final = "svdpp"
PARAMETERS: Final = ("bu", "bi", "pu", "qi", "yj")


@dataclass(frozen=True)
class SvdppConfig(DescentConfig):
    """Hyperparameters of SVD++."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 4096, "search": (10, 200, "log")}, "Factors per user and item."
    ] = 20
    lr_all: Annotated[
        float,
        {"least": 0, "most": 10, "search": (0.001, 0.02, "log")},
        "Learning rate of parameters without one of their own.",
    ] = 0.007
    lr_yj: Annotated[float | None, {"least": 0, "most": 10}, "Learning rate of implicit item factors; else lr_all."] = (
        None
    )
    reg_yj: Annotated[float | None, {"least": 0, "most": 1000}, "Regularisation of implicit factors; else reg_all."] = (
        None
    )


def fit(data: Interactions, config: SvdppConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit SVD++, with p_u + z_u as the factors of users.

    Raises:
        TrainingDiverged: Errors or factors are no longer finite.
        RunError: A checkpoint cannot be written.
    """
    unit = unit_of(data.rating_min, data.rating_max)
    rescaled = in_unit(data, unit)
    visiting = visit_order.user_by_user(rescaled, rng)
    tables, implicit_factors = first_tables(data, config, rng)
    mean = np.float32(rescaled.ratings.mean(dtype=np.float64))
    steps = learning_rates(config, PARAMETERS)

    def visit(start: int, stop: int) -> float:
        return _visit(start, stop, visiting.ratings, tables, implicit_factors, mean, steps)

    checkpoint = TableCheckpoint(NAME, data, config, rng, (*tables, implicit_factors))
    run_epochs(NAME, data, config, lambda: visiting.epoch(visit), progress, checkpoint)
    _add_implicit(visiting.ratings.users, visiting.ratings.items, tables.user_factors, implicit_factors)
    how = rating_fold_in.of_descent(config, unit, biased=True)
    return build_snapshot(NAME, data, config, tables, float(mean), unit, how, implicit_factors)


ALGORITHMS: Final = {NAME: Algorithm(SvdppConfig, fit)}


def first_tables(data: Interactions, config: SvdppConfig, rng: np.random.Generator) -> tuple[FactorTables, Float32]:
    """Draw the initial factors and implicit item factors; biases start at zero."""
    users, items, implicit = (
        draw_normal(len(rows), config.n_factors, config.init_mean, config.init_std_dev, rng)
        for rows in (data.users, data.items, data.items)
    )
    return zero_bias_tables(users, items), implicit


@compiled
def _stop_of_user(users: Int32, start: int, stop: int) -> int:  # pragma: no cover  # compiled
    """Return the end of the ratings of the user at `start`."""
    end = start + 1
    while end < stop and users[end] == users[start]:
        end += 1
    return end


@compiled
def _sum_implicit(
    items: Int32, start: int, stop: int, implicit_factors: Float32, sums: Float32
) -> None:  # pragma: no cover  # compiled
    """Set row 0 of sums (n, w) to z_u of the user whose items are start to stop."""
    width = sums.shape[1]
    share = np.float32(1 / np.sqrt(stop - start))
    for f in range(width):
        sums[0, f] = 0
    for n in range(start, stop):
        if n + AHEAD < stop:
            prefetch(implicit_factors, items[n + AHEAD])
        for f in range(width):
            sums[0, f] += implicit_factors[items[n], f]
    for f in range(width):
        sums[0, f] *= share


@compiled
def _add_implicit(
    users: Int32, items: Int32, user_factors: Float32, implicit_factors: Float32
) -> None:  # pragma: no cover  # compiled
    """Add z_u to each user's factors."""
    width = user_factors.shape[1]
    sums = np.empty((1, width), dtype=np.float32)
    start = 0
    while start < users.size:
        stop = _stop_of_user(users, start, users.size)
        _sum_implicit(items, start, stop, implicit_factors, sums)
        for f in range(width):
            user_factors[users[start], f] += sums[0, f]
        start = stop


@compiled
def _visit(
    start: int,
    stop: int,
    ratings: VisitedRatings,
    tables: FactorTables,
    implicit_factors: Float32,
    mean: np.float32,
    steps: Float32,
) -> float:  # pragma: no cover  # compiled; tests/reference/svdpp.py
    """Visit the ratings of some users; return the sum of squared errors before each step. Rows are in whole lanes."""
    lr_bu, lr_bi, lr_pu, lr_qi, lr_yj = steps[0], steps[1], steps[2], steps[3], steps[4]
    reg_bu, reg_bi, reg_pu, reg_qi, reg_yj = steps[5], steps[6], steps[7], steps[8], steps[9]
    users, items, values = ratings
    user_factors, item_factors, user_bias, item_bias = tables
    width = user_factors.shape[1]
    # Row 0: z_u. Row 1: z_u before the first rating, then the gain of each y_j.
    implicit = np.empty((2, width), dtype=np.float32)
    one = np.float32(1)
    squared_error = 0.0
    user_start = start
    while user_start < stop:
        user_stop = _stop_of_user(users, user_start, stop)
        u = users[user_start]
        _sum_implicit(items, user_start, user_stop, implicit_factors, implicit)
        for f in range(width):
            implicit[1, f] = implicit[0, f]
        for n in range(user_start, user_stop):
            i = items[n]
            if n + AHEAD < user_stop:
                prefetch(item_factors, items[n + AHEAD])
            affinity = product(user_factors, u, item_factors, i) + product(implicit, 0, item_factors, i)
            error = values[n] - (mean + user_bias[u] + item_bias[i] + affinity)
            squared_error += error * error
            user_bias[u] += lr_bu * (error - reg_bu * user_bias[u])
            item_bias[i] += lr_bi * (error - reg_bi * item_bias[i])
            for f in range(width):
                p, q, z = user_factors[u, f], item_factors[i, f], implicit[0, f]
                user_factors[u, f] = p + lr_pu * (error * q - reg_pu * p)
                item_factors[i, f] = q + lr_qi * (error * (p + z) - reg_qi * q)
                implicit[0, f] = z + lr_yj * (error * q - reg_yj * z)
        decay = (one - lr_yj * reg_yj) ** np.float32(user_stop - user_start)
        share = np.float32(1 / np.sqrt(user_stop - user_start))
        for f in range(width):
            implicit[1, f] = share * (implicit[0, f] - decay * implicit[1, f])
        for n in range(user_start, user_stop):
            if n + AHEAD < user_stop:
                prefetch(implicit_factors, items[n + AHEAD])
            for f in range(width):
                implicit_factors[items[n], f] = decay * implicit_factors[items[n], f] + implicit[1, f]
        user_start = user_stop
    return squared_error
