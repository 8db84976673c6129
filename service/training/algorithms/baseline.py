"""Baseline: a rating is predicted as mu + b_u + b_i, the mean plus the biases of user and item.

The biases minimise the squared error with a penalty on their size (Koren, "Factor in the neighbors: scalable and
accurate collaborative filtering", ACM TKDD 4(1), 2010, section 2.1). Names and defaults are those of scikit-surprise's
BaselineOnly; tests/reference/baseline.py is the slow equivalent.

- als: alternately b_i = sum over the n_i raters of i of (r - mu - b_u) / (reg_i + n_i), and b_u likewise with reg_u.
- sgd: for each rating, with e = r - prediction, b += learning_rate (e - reg b) for both biases.

Invariant: the result depends on the ratings and the hyperparameters alone. sgd visits users in order of their rows, and
the ratings of a user in a shuffled but fixed order: with a common order of items the biases are worse (RMSE .875
instead of .867 on a fold of MovieLens latest-small).
"""

from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from service.errors import TrainingDiverged
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import rating_fold_in
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.sparse.rows import SparseRows, sparse_rows
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble, history
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Float64, Int64, Interactions, Progress, no_progress

NAME: Final = "baseline"
METHODS: Final = ("als", "sgd")
_SHUFFLE_SEED: Final = 0
_N_EPOCHS: Final = {"als": 10, "sgd": 20}


@dataclass(frozen=True)
class BaselineConfig(Hyperparameters):
    """Hyperparameters of the baseline."""

    method: Annotated[str, {"choices": METHODS}, "Alternating least squares or stochastic gradient descent."] = "als"
    n_epochs: Annotated[
        int | None,
        {"unit": "epochs", "least": 1, "most": 100_000},
        "Passes over the ratings; if none, 10 for als and 20 for sgd.",
    ] = None
    reg_u: Annotated[float, {"least": 0, "most": 1e6, "search": (1, 50)}, "For als: regularisation of user biases."] = (
        15.0
    )
    reg_i: Annotated[float, {"least": 0, "most": 1e6, "search": (1, 50)}, "For als: regularisation of item biases."] = (
        10.0
    )
    reg: Annotated[float, {"least": 0, "most": 1000, "search": (0.001, 0.2, "log")}, "For sgd: regularisation."] = 0.02
    learning_rate: Annotated[
        float, {"least": 0, "most": 10, "search": (0.001, 0.05, "log")}, "For sgd: learning rate."
    ] = 0.005


class Baseline(NamedTuple):
    """The baseline of ratings.

    Attributes:
        mean: Mean of all ratings.
        user_bias: Float64 (n_users,), 0 for users without ratings.
        item_bias: Float64 (n_items,), 0 for items without ratings.
    """

    mean: float
    user_bias: Float64
    item_bias: Float64


def fit(data: Interactions, config: BaselineConfig, _rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit the baseline, a model without factors, whose list is the same for all users.

    Raises:
        TrainingDiverged: Biases are no longer finite.
    """
    ratings = history(data)
    baseline = estimate(ratings, config, progress)
    return assemble(
        data,
        NAME,
        config,
        user_bias=baseline.user_bias.astype(np.float32),
        item_bias=baseline.item_bias.astype(np.float32),
        global_mean=baseline.mean,
        fold_in=rating_fold_in.of_biases(*bias_penalties(config)),
    )


def bias_penalties(config: BaselineConfig) -> tuple[float, float]:
    """Return the penalty of a user's bias for each rating, and the fixed one, by which a user is folded in."""
    if config.method == "als":
        return 0.0, float(config.reg_u)
    return float(config.reg), rating_fold_in.stopping_penalty(config.learning_rate, _n_epochs(config))


def _n_epochs(config: BaselineConfig) -> int:
    return config.n_epochs or _N_EPOCHS[config.method]


ALGORITHMS: Final = {NAME: Algorithm(BaselineConfig, fit)}


def estimate(
    ratings: csr_array, config: BaselineConfig, progress: Progress = no_progress, *, prefix: str = ""
) -> Baseline:
    """Estimate mean and biases.

    Args:
        ratings: Float32 CSR (n_users, n_items), at least one rating.
        prefix: Prefix of the names of hyperparameters in error messages, if another algorithm embeds them.

    Raises:
        TrainingDiverged: Biases are no longer finite as float32.
    """
    by_user = sparse_rows(ratings)
    by_item = sparse_rows(ratings.T.tocsr()) if config.method == "als" else by_user
    order = shuffled_by_user(ratings) if config.method == "sgd" else by_user.indptr
    mean = float(ratings.data.mean(dtype=np.float64))
    user_bias, item_bias = (np.zeros(n) for n in ratings.shape)
    n_epochs = _n_epochs(config)
    progress("fit", 0, n_epochs)
    for epoch in range(n_epochs):
        if config.method == "als":
            _solve(by_item, mean, user_bias, float(config.reg_i), item_bias)
            _solve(by_user, mean, item_bias, float(config.reg_u), user_bias)
        else:
            _descend(by_user, order, mean, user_bias, item_bias, float(config.learning_rate), float(config.reg))
        largest = max(np.abs(user_bias).max(), np.abs(item_bias).max())
        if not largest < np.finfo(np.float32).max:  # false for NaN too
            raise TrainingDiverged(
                f"{NAME} diverged in epoch {epoch + 1} of {n_epochs} with "
                f"{prefix}learning_rate={config.learning_rate}; lower it."
            )
        progress("fit", epoch + 1, n_epochs)
    return Baseline(mean, user_bias, item_bias)


def shuffled_by_user(ratings: csr_array) -> Int64:
    """Return the order of ratings in sgd: int64 (nnz,), positions in CSR order, grouped by user."""
    shuffled = np.random.default_rng(_SHUFFLE_SEED).permutation(ratings.nnz)
    user_of = np.repeat(np.arange(ratings.shape[0], dtype=np.int32), np.diff(ratings.indptr))
    return shuffled[np.argsort(user_of[shuffled], kind="stable")]


@compiled
def _solve(
    rows: SparseRows, mean: float, others: Float64, regularisation: float, bias: Float64
) -> None:  # pragma: no cover  # compiled; tests/reference/baseline.py
    """Set the biases of all rows to the optimum given the biases of the other side."""
    for row in range(bias.size):
        start, stop = rows.indptr[row], rows.indptr[row + 1]
        total = 0.0
        for n in range(start, stop):
            total += rows.values[n] - mean - others[rows.indices[n]]
        if stop > start:
            bias[row] = total / (regularisation + (stop - start))


@compiled
def _descend(
    by_user: SparseRows,
    order: Int64,
    mean: float,
    user_bias: Float64,
    item_bias: Float64,
    learning_rate: float,
    regularisation: float,
) -> None:  # pragma: no cover  # compiled; tests/reference/baseline.py
    """Visit every rating once."""
    for u in range(user_bias.size):
        for place in range(by_user.indptr[u], by_user.indptr[u + 1]):
            n = order[place]
            i = by_user.indices[n]
            error = by_user.values[n] - (mean + user_bias[u] + item_bias[i])
            user_bias[u] += learning_rate * (error - regularisation * user_bias[u])
            item_bias[i] += learning_rate * (error - regularisation * item_bias[i])
