"""Training of factors epoch by epoch: padded tables, the loop over epochs, and the snapshot.

Invariant: a returned snapshot is finite, and users and items without ratings have no factors. Rows are padded with
zeros to whole lanes; updates keep the padding zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from service.errors import TrainingDiverged
from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.training import hyperparameters
from service.training.algorithms.kernels.factors.rating_unit import Unit
from service.training.algorithms.kernels.factors.vectors import LANES
from service.training.assembly import assemble
from service.training.checkpoints.table import TableCheckpoint
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Float32, Int32, Interactions, Progress


@dataclass(frozen=True)
class DescentConfig(Hyperparameters):
    """Hyperparameters of stochastic gradient descent for factors and biases."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 4096, "search": (10, 200, "log")}, "Factors per user and item."
    ] = 100
    n_epochs: Annotated[
        int, {"unit": "epochs", "least": 1, "most": 100_000, "search": (10, 100, "log")}, "Passes over the ratings."
    ] = 20
    init_mean: Annotated[float, {"least": -100, "most": 100}, "Mean of the initial factors."] = 0.0
    init_std_dev: Annotated[
        float, {"least": 0, "most": 100, "search": (0.01, 0.2, "log")}, "Standard deviation of the initial factors."
    ] = 0.1
    lr_all: Annotated[
        float,
        {"least": 0, "most": 10, "search": (0.001, 0.02, "log")},
        "Learning rate of parameters without one of their own.",
    ] = 0.005
    reg_all: Annotated[
        float,
        {"least": 0, "most": 1000, "search": (0.01, 0.2, "log")},
        "Regularisation of parameters without one of their own.",
    ] = 0.02
    lr_bu: Annotated[float | None, {"least": 0, "most": 10}, "Learning rate of user biases; else lr_all."] = None
    lr_bi: Annotated[float | None, {"least": 0, "most": 10}, "Learning rate of item biases; else lr_all."] = None
    lr_pu: Annotated[float | None, {"least": 0, "most": 10}, "Learning rate of user factors; else lr_all."] = None
    lr_qi: Annotated[float | None, {"least": 0, "most": 10}, "Learning rate of item factors; else lr_all."] = None
    reg_bu: Annotated[float | None, {"least": 0, "most": 1000}, "Regularisation of user biases; else reg_all."] = None
    reg_bi: Annotated[float | None, {"least": 0, "most": 1000}, "Regularisation of item biases; else reg_all."] = None
    reg_pu: Annotated[float | None, {"least": 0, "most": 1000}, "Regularisation of user factors; else reg_all."] = None
    reg_qi: Annotated[float | None, {"least": 0, "most": 1000}, "Regularisation of item factors; else reg_all."] = None


class FactorTables(NamedTuple):
    """Factors, float32 (n_users, w) and (n_items, w), and biases, float32 (n_users,) and (n_items,)."""

    user_factors: Float32
    item_factors: Float32
    user_bias: Float32
    item_bias: Float32


def zero_bias_tables(user_factors: Float32, item_factors: Float32) -> FactorTables:
    """Return tables with biases of zero."""
    biases = (np.zeros(len(factors), np.float32) for factors in (user_factors, item_factors))
    return FactorTables(user_factors, item_factors, *biases)


def draw_normal(n: int, k: int, mean: float, std_dev: float, rng: np.random.Generator) -> Float32:
    """Draw normally distributed factors, float32 (n, k padded to whole lanes)."""
    factors = rng.standard_normal((n, _padded(k)), dtype=np.float32)
    factors *= np.float32(std_dev)
    factors += np.float32(mean)
    factors[:, k:] = 0
    return factors


def draw_uniform(n: int, k: int, low: float, high: float, rng: np.random.Generator) -> Float32:
    """Draw factors from low to high, float32 (n, k padded to whole lanes)."""
    factors = rng.random((n, _padded(k)), dtype=np.float32)
    factors *= np.float32(high - low)
    factors += np.float32(low)
    factors[:, k:] = 0
    return factors


def learning_rates(config: Any, parameters: Sequence[str]) -> Float32:
    """Return the learning rate of each parameter, then the regularisation of each: float32 (2 len(parameters),).

    `config` has lr_NAME and reg_NAME for the name of each parameter; lr_all and reg_all replace those that are None.
    """
    own = [(kind, getattr(config, f"{kind}_{name}")) for kind in ("lr", "reg") for name in parameters]
    return np.array([getattr(config, f"{kind}_all") if value is None else value for kind, value in own], np.float32)


def run_epochs(
    name: str,
    data: Interactions,
    config: Any,
    epoch: Callable[[], float],
    progress: Progress,
    checkpoint: TableCheckpoint | None = None,
) -> None:
    """Run `config.n_epochs` epochs; `epoch` returns a number that is finite unless training diverges.

    Args:
        checkpoint: Where the tables of the epochs are kept, to continue from after the process was killed.

    Raises:
        TrainingDiverged: An epoch returned a number that is not finite.
        RunError: The checkpoint cannot be written.
    """
    n_done = 0 if checkpoint is None else checkpoint.resume()
    progress("fit", n_done, config.n_epochs)
    for n in range(n_done, config.n_epochs):
        if not np.isfinite(epoch()):
            raise _diverged(name, data, config, n + 1)
        if checkpoint is not None:
            checkpoint.keep(n + 1)
        progress("fit", n + 1, config.n_epochs)


def build_snapshot(
    name: str,
    data: Interactions,
    config: Any,
    tables: FactorTables,
    global_mean: float,
    unit: Unit,
    fold_in: FoldIn,
    input_factors: Float32 | None = None,
) -> ModelSnapshot:
    """Build the snapshot of learnt tables.

    Args:
        data: The training data, in its original unit.
        config: Settings with `n_factors`.
        tables: The learnt tables; modified.
        global_mean: The learnt mean.
        unit: The unit of the tables and of the mean.
        fold_in: How the model folds users in, in the unit of the ratings.
        input_factors: Float32 (n_items, w), the factors of items as inputs of the fold-in, in `unit`; modified.

    Raises:
        TrainingDiverged: A number is not finite.
    """
    _zero_unrated(tables.user_factors, data.user_rows)
    _zero_unrated(tables.item_factors, data.item_rows)
    if input_factors is not None:
        _zero_unrated(input_factors, data.item_rows)
    # No prediction of an epoch contains its last step, so `run_epochs` may have missed a divergence.
    learnt = tables if input_factors is None else (*tables, input_factors)
    if not all(np.isfinite(array.min()) and np.isfinite(array.max()) for array in learnt):
        raise _diverged(name, data, config, config.n_epochs)

    def published(factors: Float32) -> Float32:
        return unit.of_factors(np.ascontiguousarray(factors[:, : config.n_factors]))

    return assemble(
        data,
        name,
        config,
        user_factors=published(tables.user_factors),
        item_factors=published(tables.item_factors),
        user_bias=unit.of_biases(tables.user_bias),
        item_bias=unit.of_biases(tables.item_bias),
        global_mean=unit.value(global_mean),
        input_factors=None if input_factors is None else published(input_factors),
        fold_in=fold_in,
    )


def _padded(k: int) -> int:
    return -(-k // LANES) * LANES


def _zero_unrated(factors: Float32, rows: Int32) -> None:
    is_unrated = np.ones(len(factors), dtype=bool)
    is_unrated[rows] = False
    factors[is_unrated] = 0


def _diverged(name: str, data: Interactions, config: Any, epoch: int) -> TrainingDiverged:
    named = {key: value for key, value in hyperparameters.as_json(config).items() if key.startswith(("lr_", "init_"))}
    rates = ", ".join(f"{key}={value}" for key, value in named.items() if value is not None)
    return TrainingDiverged(
        f"{name} diverged in epoch {epoch} of {config.n_epochs} on ratings from {data.rating_min:g} to "
        f"{data.rating_max:g} with {rates}; lower the learning rates."
    )
