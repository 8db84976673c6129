"""Non-negative matrix factorisation: a rating is predicted as q_i . p_u with factors of at least 0.

With s = prediction, an epoch multiplies every factor:

    p_uf <- p_uf (sum of q_if r) / (sum of q_if s + n_u reg_pu p_uf)   over the n_u ratings of user u
    q_if <- q_if (sum of p_uf r) / (sum of p_uf s + n_i reg_qi q_if)   over the n_i ratings of item i

where both sides use the factors and predictions before the epoch (X. Luo, M. Zhou, Y. Xia and Q. Zhu, "An efficient
non-negative matrix-factorization-based approach to collaborative filtering for recommender systems", IEEE Transactions
on Industrial Informatics 10(2), 2014; without regularisation D. Lee and H. S. Seung, "Algorithms for non-negative
matrix factorization", NIPS 2000). With `biased`, the prediction includes mu + b_u + b_i, and each rating in turn
updates b_u and b_i as in SVD. Names and defaults of the hyperparameters are those of scikit-surprise's NMF.
tests/reference/nmf.py is the slow equivalent.

Both sides move at once and overshoot: predictions that were too low by some factor become too high by it.
Regularisation damps this; without it a fit does not converge. The result depends on the start: on one fold of MovieLens
1M, the RMSE is between .9115 and .9157. A fit therefore makes several starts and keeps the one with the least training
error, which correlates with the test error (r = .89 on that fold).

Invariants: factors stay at least 0, because no rating is learnt below 0; a factor whose denominator is not above 0
keeps its value. The result depends on data, hyperparameters and generator alone: one core sums each row in a fixed
order, and one core updates all biases.
"""

from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Final, NamedTuple

import numpy as np

from service.errors import UsageError
from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.factors import visit_order
from service.training.algorithms.kernels.factors.rating_unit import Unit, in_unit, unit_of
from service.training.algorithms.kernels.factors.training import (
    FactorTables,
    build_snapshot,
    draw_uniform,
    run_epochs,
    zero_bias_tables,
)
from service.training.algorithms.kernels.factors.vectors import AHEAD, prefetch, product
from service.training.algorithms.kernels.factors.visit_order import VisitedRatings
from service.training.algorithms.rating_fold_in import AS_RATED
from service.training.algorithms.registry import Algorithm
from service.training.checkpoints.table import TableCheckpoint
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Float32, Int32, Int64, Interactions, Progress

NAME: Final = "nmf"
# Block sizes: large enough to hide the start of a block, small enough that all cores end together.
_BLOCK_RATINGS: Final = 1 << 16
_BLOCK_ROWS: Final = 256


@dataclass(frozen=True)
class NmfConfig(Hyperparameters):
    """Hyperparameters of NMF."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 4096, "search": (5, 50, "log")}, "Factors per user and item."
    ] = 15
    n_epochs: Annotated[
        int, {"unit": "epochs", "least": 1, "most": 100_000, "search": (20, 200, "log")}, "Updates of all factors."
    ] = 50
    biased: Annotated[bool, {}, "Whether to learn a mean and biases too."] = False
    reg_pu: Annotated[
        float, {"least": 0, "most": 1000, "search": (0.01, 0.5, "log")}, "Regularisation of user factors, per rating."
    ] = 0.06
    reg_qi: Annotated[
        float, {"least": 0, "most": 1000, "search": (0.01, 0.5, "log")}, "Regularisation of item factors, per rating."
    ] = 0.06
    reg_bu: Annotated[float, {"least": 0, "most": 1000}, "Regularisation of user biases."] = 0.02
    reg_bi: Annotated[float, {"least": 0, "most": 1000}, "Regularisation of item biases."] = 0.02
    lr_bu: Annotated[float, {"least": 0, "most": 10}, "Learning rate of user biases."] = 0.005
    lr_bi: Annotated[float, {"least": 0, "most": 10}, "Learning rate of item biases."] = 0.005
    init_low: Annotated[float, {"least": 0, "most": 100}, "Lower bound of the initial factors."] = 0.0
    init_high: Annotated[float, {"least": 0, "most": 100}, "Upper bound of the initial factors."] = 1.0
    n_starts: Annotated[
        int, {"least": 1, "most": 1000}, "Number of fits; that with the least training error is kept."
    ] = 3

    def __post_init__(self) -> None:
        """Check the hyperparameters.

        Raises:
            UsageError: One is out of its bounds, or `init_high` is not above `init_low`.
        """
        super().__post_init__()
        if self.init_high <= self.init_low:
            raise UsageError(f"init_high must be above init_low, which is {self.init_low:g}, not {self.init_high:g}.")


def fit(data: Interactions, config: NmfConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit NMF, on all cores. A scale that begins below 0 is moved to begin there during the fit.

    Raises:
        TrainingDiverged: Predictions or factors are no longer finite.
        RunError: A checkpoint cannot be written.
    """
    unit = unit_of(min(data.rating_min, float(data.ratings.min())), data.rating_max, from_zero=True)
    rescaled = in_unit(data, unit)
    mean = np.float32(rescaled.ratings.mean(dtype=np.float64) if config.biased else 0.0)
    descent = _Descent(visit_order.user_by_user(rescaled, rng).ratings, len(data.users), len(data.items), mean, config)

    def start(number: int) -> tuple[float, FactorTables]:
        def overall(stage: str, done: int, total: int) -> None:
            progress(stage, number * total + done, config.n_starts * total)

        tables = first_tables(data, config, rng)
        # Each start has a checkpoint of its own, because each begins with another state of the generator.
        checkpoint = TableCheckpoint(NAME, data, config, rng, tables)
        run_epochs(NAME, data, config, lambda: descent.epoch(tables), overall, checkpoint)
        return descent.squared_error(tables), tables

    _, tables = min(map(start, range(config.n_starts)), key=itemgetter(0))
    return build_snapshot(NAME, data, config, tables, float(mean), unit, _fold_in(config, unit))


ALGORITHMS: Final = {NAME: Algorithm(NmfConfig, fit)}


def _fold_in(config: NmfConfig, unit: Unit) -> FoldIn:
    """Return the fold-in, in the unit of the ratings, from the mean of the initial factors."""
    return FoldIn(
        "non_negative",
        AS_RATED,
        {
            "reg": config.reg_pu / unit.factor,
            "n_epochs": float(config.n_epochs),
            "start": (config.init_low + config.init_high) / 2 * unit.factor**-0.5,
            "zero": unit.offset,
            "biased": float(config.biased),
            "reg_bias": float(config.reg_bu),
            "lr_bias": float(config.lr_bu),
        },
    )


def first_tables(data: Interactions, config: NmfConfig, rng: np.random.Generator) -> FactorTables:
    """Draw the initial factors; biases start at zero."""
    users, items = (
        draw_uniform(len(rows), config.n_factors, config.init_low, config.init_high, rng)
        for rows in (data.users, data.items)
    )
    return zero_bias_tables(users, items)


class _RowRatings(NamedTuple):
    """Ratings grouped by the rows of one side, users or items.

    Attributes:
        starts: Int64 (n_rows + 1,), start of each row's ratings.
        positions: Int32 or int64 (n,), position of each rating's estimate.
        partners: Int32 (n,), rows of the other side.
        ratings: Float32 (n,).
    """

    starts: Int64
    positions: Int32 | Int64
    partners: Int32
    ratings: Float32


def _by_row(rows: Int32, partners: Int32, ratings: Float32, n_rows: int) -> _RowRatings:
    order, starts = visit_order.group_by_key(rows, n_rows)
    return _RowRatings(starts, order, partners[order], ratings[order])


class _Descent:
    """Epochs over the same ratings, for one start after the other."""

    def __init__(self, visits: VisitedRatings, n_users: int, n_items: int, mean: np.float32, config: NmfConfig) -> None:
        self._visits, self._mean, self._config = visits, mean, config
        self._user_side = _by_row(visits.users, visits.items, visits.values, n_users)
        self._item_side = _by_row(visits.items, visits.users, visits.values, n_items)
        self._estimates = np.empty(visits.values.size, dtype=np.float32)

    def epoch(self, tables: FactorTables) -> float:
        """Run one epoch; return the sum of all predictions."""
        config = self._config
        self._multiply(tables)
        if config.biased:
            rates = np.array((config.lr_bu, config.lr_bi, config.reg_bu, config.reg_bi), np.float32)
            _move_biases(self._visits, tables, self._mean, rates, self._estimates)
        users, items = tables.user_factors, tables.item_factors
        scaled_users = self._scaled(self._user_side, users, items, config.reg_pu)
        items[:] = self._scaled(self._item_side, items, users, config.reg_qi)
        users[:] = scaled_users
        return float(self._estimates.sum(dtype=np.float64))

    def squared_error(self, tables: FactorTables) -> float:
        """Return the sum of squared errors of the training ratings."""
        visits, errors = self._visits, self._estimates
        self._multiply(tables)
        errors += self._mean
        errors += tables.user_bias[visits.users]
        errors += tables.item_bias[visits.items]
        errors -= visits.values
        np.square(errors, out=errors)
        return float(errors.sum(dtype=np.float64))

    def _multiply(self, tables: FactorTables) -> None:
        """Set the estimates to the products of factors."""

        def multiply(start: int, stop: int) -> None:
            _multiply(start, stop, self._visits, tables, self._estimates)

        threads.run_in_blocks(multiply, self._estimates.size, _BLOCK_RATINGS)

    def _scaled(self, side: _RowRatings, own: Float32, other: Float32, regularisation: float) -> Float32:
        """Return one side's factors after the epoch."""
        scaled = np.empty_like(own)

        def scale(start: int, stop: int) -> None:
            _scale(start, stop, side, self._estimates, own, other, scaled, np.float32(regularisation))

        threads.run_in_blocks(scale, len(own), _BLOCK_ROWS)
        return scaled


@compiled
def _multiply(
    start: int, stop: int, ratings: VisitedRatings, tables: FactorTables, estimates: Float32
) -> None:  # pragma: no cover  # compiled; tests/reference/nmf.py
    """Set the estimates of ratings start to stop to the products of factors. Rows are in whole lanes."""
    for n in range(start, stop):
        if n + AHEAD < stop:
            prefetch(tables.item_factors, ratings.items[n + AHEAD])
        estimates[n] = product(tables.user_factors, ratings.users[n], tables.item_factors, ratings.items[n])


@compiled
def _move_biases(
    ratings: VisitedRatings, tables: FactorTables, mean: np.float32, rates: Float32, estimates: Float32
) -> None:  # pragma: no cover  # compiled; tests/reference/nmf.py
    """Update the biases by each rating in turn, and add the mean and the previous biases to each estimate."""
    lr_bu, lr_bi, reg_bu, reg_bi = rates[0], rates[1], rates[2], rates[3]
    user_bias, item_bias = tables.user_bias, tables.item_bias
    for n in range(ratings.values.size):
        u, i = ratings.users[n], ratings.items[n]
        estimates[n] += mean + user_bias[u] + item_bias[i]
        error = ratings.values[n] - estimates[n]
        user_bias[u] += lr_bu * (error - reg_bu * user_bias[u])
        item_bias[i] += lr_bi * (error - reg_bi * item_bias[i])


@compiled
def _scale(
    start: int,
    stop: int,
    side: _RowRatings,
    estimates: Float32,
    own: Float32,
    other: Float32,
    scaled: Float32,
    regularisation: np.float32,
) -> None:  # pragma: no cover  # compiled; tests/reference/nmf.py
    """Set rows start to stop of `scaled` to those of `own` after an epoch. Rows are in whole lanes."""
    starts, positions, partners, ratings = side
    width = own.shape[1]
    sums = np.empty((2, width), dtype=np.float32)
    for row in range(start, stop):
        first, last = starts[row], starts[row + 1]
        sums[:] = 0
        for n in range(first, last):
            if n + AHEAD < last:
                prefetch(other, partners[n + AHEAD])
            partner, rating, estimate = partners[n], ratings[n], estimates[positions[n]]
            for f in range(width):
                sums[0, f] += other[partner, f] * rating
                sums[1, f] += other[partner, f] * estimate
        weight = np.float32(last - first) * regularisation
        for f in range(width):
            denominator = sums[1, f] + weight * own[row, f]
            if denominator > 0:
                scaled[row, f] = own[row, f] * (sums[0, f] / denominator)
            else:
                scaled[row, f] = own[row, f]
