"""Implicit ALS: factors of interactions, in which every unobserved pair has a small weight.

With user factors w, item factors h, the set S of interactions and their confidences c, the loss is

    sum over (u, i) in S of |c_ui| (w_u . h_i - sign c_ui)^2  +  unobserved_weight * sum over all pairs of (w_u . h_i)^2
    + reg * sum over u of (|S_u| + unobserved_weight * n_items)^reg_exp |w_u|^2
    + reg * sum over i of (|S_i| + unobserved_weight * n_users)^reg_exp |h_i|^2

where a confidence is the weight of the interaction (`weighted_history`), below 0 for a dislike, and |S_u| is the sum of
the absolute weights of u. It is minimised alternately, over users and over items (Hu, Koren and Volinsky,
"Collaborative filtering for implicit feedback datasets", ICDM 2008; Rendle, Krichene, Zhang and Koren, "Revisiting the
performance of iALS on item recommendation benchmarks", RecSys 2022, whose conventions the hyperparameters follow).
Blocks of factors are those of iALS++, see `kernels.sparse.ridge`. tests/reference/ials.py is the slow equivalent.

The published factors of users are those of the last table of items, with weights that fall with recency: the fold-in
of a user's history (`service.models.fold_in.implicit_ridge`).

Before each half epoch both tables are rotated so that the Gramian of the fixed one is diagonal. The rotation preserves
products and norms, and gives each row a regression with a diagonal penalty.

Invariant: the result depends on data, hyperparameters and generator alone: each row is computed independently, and sums
over rows are added in an order that depends on the number of rows. So workers that solve ranges of rows
(`distributed_rows`) give the same bits as threads.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Final

import numpy as np
import scipy.linalg

from service.errors import DataError
from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.ials.distributed_rows import rows_in_use
from service.training.algorithms.ials.rows import Confidences, RowInteractions, SolvableRows
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.weighted_history import WeightedHistory
from service.training.assembly import assemble, history_entries
from service.training.checkpoints.table import TableCheckpoint
from service.training.entry_weights import entry_weights, undecayed, without_negligible
from service.training.interactions import Float32, Float64, Interactions, Progress

NAME: Final = "ials"
_UNOBSERVED: Final = 10.0  # weight of all pairs together, relative to that of the interactions
_TABLE_ROWS: Final = 4096  # rows of a table multiplied at a time
_MAX_PARTS: Final = 16  # partial sums over a table


@dataclass(frozen=True)
class IalsConfig(WeightedHistory):
    """Hyperparameters of implicit ALS."""

    n_factors: Annotated[
        int, {"unit": "factors", "least": 1, "most": 8192, "search": (32, 512, "log")}, "Factors per user and item."
    ] = 128
    n_epochs: Annotated[
        int, {"unit": "epochs", "least": 1, "most": 10_000, "search": (4, 32)}, "Passes over users and items."
    ] = 16
    unobserved_weight: Annotated[
        float | None,
        {"least": 0, "most": 1000, "search": (0.001, 1, "log")},
        "Weight of every pair; an interaction adds its own. If none, all pairs weigh ten times the interactions.",
    ] = None
    reg: Annotated[float, {"least": 1e-9, "most": 1e6, "search": (0.0005, 0.05, "log")}, "Regularisation."] = 0.006
    reg_exp: Annotated[
        float,
        {"least": 0, "most": 2, "search": (0, 1)},
        "Growth of regularisation with interactions: 0 none, 1 linear.",
    ] = 1.0
    init_std_dev: Annotated[
        float,
        {"least": 1e-6, "most": 100},
        "Standard deviation of the initial factors, times the square root of n_factors.",
    ] = 0.1
    block_size: Annotated[
        int, {"unit": "factors", "least": 1, "most": 8192}, "Factors solved at once; exact from n_factors on."
    ] = 64
    confidence: Annotated[
        str,
        {"choices": ("ones", "ratings")},
        "Factor of the weight of an interaction: 1, or its rating over the mean rating.",
    ] = "ones"


def fit(data: Interactions, config: IalsConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit implicit ALS, without biases. It cannot diverge: no half epoch increases the loss.

    Raises:
        DataError: A rating that is used as a confidence is negative.
        RunError: A checkpoint cannot be written, or workers failed.
    """
    weight, mean_rating = unobserved_weight(data, config), mean_of_ratings(data, config)
    entries, weights = history_entries(data), config.history_weights(data)
    learnt = Confidences.of(entries, entry_weights(entries, undecayed(weights)), weight, mean_rating)
    by_user, by_item = learnt.user_side(config.reg, config.reg_exp), learnt.item_side(config.reg, config.reg_exp)
    user_factors, item_factors = (first_table(side, config, rng) for side in (by_user, by_item))
    checkpoint = TableCheckpoint(NAME, data, config, rng, (user_factors, item_factors))
    n_done = checkpoint.resume()
    progress("fit", n_done, config.n_epochs)
    with threads.one_blas_thread():
        with rows_in_use(by_user, "users") as users, rows_in_use(by_item, "items") as items:
            # Where workers have the interactions, this process needs them no more.
            del learnt, by_user, by_item
            for epoch in range(n_done, config.n_epochs):
                half_epoch(users, item_factors, user_factors, weight, config)
                half_epoch(items, user_factors, item_factors, weight, config)
                checkpoint.keep(epoch + 1)
                progress("fit", epoch + 1, config.n_epochs)
        served = without_negligible(entries, entry_weights(entries, weights))
        by_user = Confidences.of(entries, served, weight, mean_rating).user_side(config.reg, config.reg_exp)
        with rows_in_use(by_user, "served users") as users:
            half_epoch(users, item_factors, user_factors, weight, replace(config, block_size=config.n_factors))
        user_factors[np.diff(by_user.pairs.indptr) == 0] = 0
        # The half epoch has rotated the items so that their Gramian is diagonal.
        precision = weight * gramian(item_factors).diagonal()[np.newaxis]
    parameters = {"reg": float(config.reg), "reg_exp": float(config.reg_exp), "mean_rating": mean_rating}
    return assemble(
        data,
        NAME,
        config,
        user_factors=user_factors,
        item_factors=item_factors,
        fold_in=FoldIn("implicit_ridge", weights, parameters | {"reg_pairs": weight * len(data.items)}),
        fold_in_precision=precision,
        entries=entries,
    )


ALGORITHMS: Final = {NAME: Algorithm(IalsConfig, fit, kind="ranking")}


def unobserved_weight(data: Interactions, config: IalsConfig) -> float:
    """Return the weight of a pair: the setting, or one in proportion to the density of the data.

    A constant does not suit all data: published tunings range from 0.007 to 0.3, and roughly follow the density.
    """
    if config.unobserved_weight is not None:
        return config.unobserved_weight
    return _UNOBSERVED * len(data) / (len(data.users) * len(data.items))


def mean_of_ratings(data: Interactions, config: IalsConfig) -> float:
    """Return the mean rating if ratings are confidences, else 0.

    Raises:
        DataError: A rating that is used as a confidence is negative.
    """
    if config.confidence == "ones":
        return 0.0
    mean = float(data.ratings.mean(dtype=np.float64))
    if data.ratings.min() < 0 or mean == 0:
        raise DataError(f"{NAME} cannot use ratings as confidences when one is below 0, or all are 0.")
    return mean


def first_table(side: RowInteractions, config: IalsConfig, rng: np.random.Generator) -> Float32:
    """Draw the initial factors, float32 (n_rows, k); rows without interactions are 0."""
    counts = np.diff(side.pairs.indptr)
    table = rng.standard_normal((counts.size, config.n_factors), dtype=np.float32)
    table *= np.float32(config.init_std_dev / config.n_factors**0.5)
    table[counts == 0] = 0
    return table


def half_epoch(rows: SolvableRows, fixed: Float32, solved: Float32, weight: float, config: IalsConfig) -> None:
    """Solve all rows of one table given the other.

    Args:
        rows: The rows of the solved table.
        fixed: Float32 (n_others, k), rotated in place.
        solved: Float32 (n_rows, k), rotated and solved in place.
        weight: The weight of every pair.
    """
    eigenvalues, eigenvectors = scipy.linalg.eigh(gramian(fixed))
    rotation = eigenvectors.astype(np.float32)
    # Rounding may put an eigenvalue of a Gramian just below 0.
    spectrum = weight * np.maximum(eigenvalues, 0)
    block_size = min(config.block_size, config.n_factors)
    _rotate(fixed, rotation)
    if block_size < config.n_factors:
        _rotate(solved, rotation)
    rows.solve(fixed, spectrum, solved, block_size)


def gramian(table: Float32) -> Float64:
    """Return table' table, float64 (k, k)."""
    n, k = table.shape
    part = max(_TABLE_ROWS, -(-n // _MAX_PARTS))
    parts = np.zeros((-(-n // part), k, k))

    def add(start: int, stop: int) -> None:
        for begin in range(start, stop, _TABLE_ROWS):
            rows = table[begin : min(begin + _TABLE_ROWS, stop)]
            parts[start // part] += rows.T @ rows

    threads.run_in_blocks(add, n, part)
    gramian: Float64 = parts.sum(axis=0)
    return gramian


def _rotate(table: Float32, rotation: Float32) -> None:
    def rotate(start: int, stop: int) -> None:
        table[start:stop] = table[start:stop] @ rotation

    threads.run_in_blocks(rotate, table.shape[0], _TABLE_ROWS)
