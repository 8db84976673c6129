"""Biased matrix factorisation by stochastic gradient descent, called SVD since the Netflix Prize.

The prediction is mu + b_u + b_i + p_u . q_i. For each rating r in turn, with e = r - prediction,

    b_u += lr_bu (e - reg_bu b_u)        p_u += lr_pu (e q_i - reg_pu p_u)
    b_i += lr_bi (e - reg_bi b_i)        q_i += lr_qi (e p_u - reg_qi q_i)

where both factor updates use the values before the step (S. Funk, "Netflix Update: Try This at Home", 2006; Koren, Bell
and Volinsky, "Matrix factorization techniques for recommender systems", Computer 42(8), 2009). Names and defaults of
the hyperparameters are those of scikit-surprise's SVD. tests/reference/svd.py is the slow equivalent.

Invariant: the result depends on data, hyperparameters and generator alone, not on threads or the vector width of the
processor, nor on workers. Ratings are ordered in a grid (`visit_order.in_grid`), user by user within a block, which
keeps p_u in cache.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np

from service.models.snapshot import ModelSnapshot
from service.training.algorithms import rating_fold_in
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
from service.training.algorithms.registry import Algorithm
from service.training.checkpoints.table import TableCheckpoint
from service.training.distributed.svd import epoch_in_use
from service.training.interactions import Interactions, Progress

NAME: Final = "svd"
PARAMETERS: Final = ("bu", "bi", "pu", "qi")


@dataclass(frozen=True)
class SvdConfig(DescentConfig):
    """Hyperparameters of SVD."""

    biased: Annotated[bool, {}, "Whether to learn a mean and biases too; without them it is PMF."] = True
    n_groups: Annotated[
        int | None,
        {"unit": "groups", "least": 1, "most": 1024},
        "Groups of users, and of items, learnt from in parallel; if none, 8, 4 or, for small data, 1.",
    ] = None


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
        RunError: A checkpoint cannot be written, or workers failed.
    """
    unit = unit_of(data.rating_min, data.rating_max)
    rescaled = in_unit(data, unit)
    visiting = visit_order.in_grid(rescaled, rng, min_grid_ratings, config.n_groups)
    tables = first_tables(data, config, rng)
    mean = np.float32(rescaled.ratings.mean(dtype=np.float64) if config.biased else 0.0)
    steps = learning_rates(config, PARAMETERS)
    checkpoint = TableCheckpoint(NAME, data, config, rng, tables)
    with epoch_in_use(visiting, tables, mean, steps, biased=config.biased) as epoch:
        run_epochs(NAME, data, config, epoch, progress, checkpoint)
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
