"""Implicit ALS: factors of who interacted with what, in which everything that did not happen counts a little.

With users' factors w, items' factors h, the set S of interactions, and confidences c of them, the loss is

    sum over (u, i) in S of c_ui (w_u . h_i - 1)^2  +  unobserved_weight * sum over all pairs of (w_u . h_i)^2
    + reg * sum over u of (|S_u| + unobserved_weight * n_items)^reg_exp |w_u|^2
    + reg * sum over i of (|S_i| + unobserved_weight * n_users)^reg_exp |h_i|^2

and is minimised by turns: all users given the items, all items given the users (Hu, Koren and Volinsky, "Collaborative
filtering for implicit feedback datasets", ICDM 2008; Rendle, Krichene, Zhang and Koren, "Revisiting the performance of
iALS on item recommendation benchmarks", RecSys 2022, whose conventions the settings follow). Several blocks of factors
are those of iALS++, see `ridge`.

Before each turn both tables are rotated so that the Gramian of the fixed one is diagonal. That changes no product of
factors and no norm, and leaves to each row a regression with a diagonal penalty.

Invariant: the result is a function of data, settings and generator alone: a row is computed by itself, and sums over
rows are added in an order that the number of rows decides.
"""

from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import numpy as np
import scipy.linalg

from service.errors import DataError
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import hyperparameters
from service.training.algorithms.hyperparameters import Settings
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.ridge import solve_rows
from service.training.algorithms.kernels.sparse_rows import SparseRows, sparse_rows
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble, history
from service.training.interactions import Float32, Float64, Interactions, Progress

NAME: Final = "ials"
_UNOBSERVED: Final = 10.0  # what all pairs weigh together, where the interactions weigh 1
_SOLVED_ROWS: Final = 256  # rows that a thread solves before it takes more
_TABLE_ROWS: Final = 4096  # rows of a table that are multiplied at a time
_SHARES: Final = 16  # sums over a table are added up in so many parts at most


@dataclass(frozen=True)
class IalsConfig(Settings):
    """Settings of implicit ALS."""

    n_factors: Annotated[
        int,
        {"unit": "factors", "least": 1, "most": 8192, "search": (32, 512, "log")},
        "How many factors describe a user or an item.",
    ] = 128
    n_epochs: Annotated[
        int,
        {"unit": "epochs", "least": 1, "most": 10_000, "search": (4, 32)},
        "How often all users and all items are solved.",
    ] = 16
    unobserved_weight: Annotated[
        float | None,
        {"least": 0, "most": 1000, "search": (0.001, 1, "log")},
        "What every pair weighs where an interaction weighs 1 more; if none, so much that all pairs together "
        "weigh ten times what the interactions do.",
    ] = None
    reg: Annotated[float, {"least": 1e-9, "most": 1e6, "search": (0.0005, 0.05, "log")}, "Regularisation."] = 0.006
    reg_exp: Annotated[
        float,
        {"least": 0, "most": 2, "search": (0, 1)},
        "How regularisation grows with interactions: 0 not at all, 1 in proportion.",
    ] = 1.0
    init_std_dev: Annotated[
        float,
        {"least": 1e-6, "most": 100},
        "Standard deviation of the first factors, times the square root of n_factors.",
    ] = 0.1
    block_size: Annotated[
        int,
        {"unit": "factors", "least": 1, "most": 8192},
        "How many factors are solved at once; n_factors or more for exact turns.",
    ] = 64
    confidence: Annotated[
        str,
        {"choices": ("ones", "ratings")},
        "What an interaction weighs: the same for all, or by rating, where the mean rating weighs 1.",
    ] = "ones"


class Side(NamedTuple):
    """Who interacted with what, seen from users or from items.

    Attributes:
        pairs: The interactions of each row with rows of the other side; their values are square roots of confidences.
        penalties: Float64 (n_rows,), what regularisation adds to the diagonal of a row.
    """

    pairs: SparseRows
    penalties: Float64


def fit(data: Interactions, config: IalsConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit implicit ALS. It cannot diverge: no turn makes the loss larger.

    Args:
        data: At least one interaction; ratings count only where `confidence` says so.
        config: The settings.
        rng: Draws the first factors.
        progress: Told of the epochs.

    Returns:
        The model; users and items without an interaction in `data` have no factors, and nobody has a bias.

    Raises:
        DataError: A rating that is to be a confidence is negative.
    """
    weight = unobserved_weight(data, config)
    by_user, by_item = sides(data, weight, config)
    user_factors, item_factors = (first_table(side, config, rng) for side in (by_user, by_item))
    progress("fit", 0, config.n_epochs)
    with threads.one_blas_thread():
        for epoch in range(config.n_epochs):
            turn(by_user, item_factors, user_factors, weight, config)
            turn(by_item, user_factors, item_factors, weight, config)
            progress("fit", epoch + 1, config.n_epochs)
    return assemble(
        data,
        algorithm=NAME,
        settings=hyperparameters.as_json(config),
        user_factors=user_factors,
        item_factors=item_factors,
    )


ALGORITHM: Final = Algorithm(IalsConfig, fit, kind="ranking")


def unobserved_weight(data: Interactions, config: IalsConfig) -> float:
    """Return what every pair weighs: as set, or in proportion to the share of pairs that are interactions.

    No one number would do: published tunings go from 0.007 to 0.3, and roughly follow that share.
    """
    if config.unobserved_weight is not None:
        return config.unobserved_weight
    return _UNOBSERVED * len(data) / (len(data.users) * len(data.items))


def sides(data: Interactions, weight: float, config: IalsConfig) -> tuple[Side, Side]:
    """Arrange interactions by user and by item.

    Args:
        data: The interactions.
        weight: What every pair weighs.
        config: The settings.

    Raises:
        DataError: A rating that is to be a confidence is negative.
    """
    by_user = history(data)
    by_user.data = _scales(by_user.data, config)
    by_item = by_user.T.tocsr()
    by_item.sort_indices()
    users, items = (
        Side(sparse_rows(matrix), config.reg * (np.diff(matrix.indptr) + weight * matrix.shape[1]) ** config.reg_exp)
        for matrix in (by_user, by_item)
    )
    return users, items


def first_table(side: Side, config: IalsConfig, rng: np.random.Generator) -> Float32:
    """Draw the factors to start from, float32 (n_rows, k); a row without interactions has none."""
    counts = np.diff(side.pairs.indptr)
    table = rng.standard_normal((counts.size, config.n_factors), dtype=np.float32)
    table *= np.float32(config.init_std_dev / config.n_factors**0.5)
    table[counts == 0] = 0
    return table


def turn(side: Side, fixed: Float32, solved: Float32, weight: float, config: IalsConfig) -> None:
    """Solve all rows of one table given the other.

    Args:
        side: The interactions, seen from the table that is solved.
        fixed: Float32 (n_others, k), rotated in place.
        solved: Float32 (n_rows, k), rotated and solved in place.
        weight: What every pair weighs.
        config: The settings.
    """
    eigenvalues, eigenvectors = scipy.linalg.eigh(_gramian(fixed))
    rotation = eigenvectors.astype(np.float32)
    # Rounding may leave an eigenvalue of a Gramian just below 0.
    spectrum = weight * np.maximum(eigenvalues, 0)
    block_size = min(config.block_size, config.n_factors)
    _rotate(fixed, rotation)
    if block_size < config.n_factors:
        _rotate(solved, rotation)

    def solve(start: int, stop: int) -> None:
        solve_rows(start, stop, *side.pairs, fixed, spectrum, side.penalties, solved, block_size)

    threads.run_in_blocks(solve, solved.shape[0], _SOLVED_ROWS)


def _scales(ratings: Float32, config: IalsConfig) -> Float32:
    """Return the square roots of confidences, float32 (n,)."""
    if config.confidence == "ones":
        return np.ones_like(ratings)
    mean = float(ratings.mean(dtype=np.float64))
    if ratings.min() < 0 or mean == 0:
        raise DataError(f"{NAME} cannot take ratings for confidences when one is below 0, or all are 0")
    scales: Float32 = np.sqrt(ratings / np.float32(mean))
    return scales


def _gramian(table: Float32) -> Float64:
    """Return table' table, float64 (k, k)."""
    n, k = table.shape
    share = max(_TABLE_ROWS, -(-n // _SHARES))
    parts = np.zeros((-(-n // share), k, k))

    def add(start: int, stop: int) -> None:
        for begin in range(start, stop, _TABLE_ROWS):
            rows = table[begin : min(begin + _TABLE_ROWS, stop)]
            parts[start // share] += rows.T @ rows

    threads.run_in_blocks(add, n, share)
    gramian: Float64 = parts.sum(axis=0)
    return gramian


def _rotate(table: Float32, rotation: Float32) -> None:
    def rotate(start: int, stop: int) -> None:
        table[start:stop] = table[start:stop] @ rotation

    threads.run_in_blocks(rotate, table.shape[0], _TABLE_ROWS)
