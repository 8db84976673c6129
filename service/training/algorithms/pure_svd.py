"""PureSVD: the largest singular vectors of the matrix of interactions, normalised by degrees.

With R the 0/1 histories of users and D_u, D_i the diagonal matrices of the numbers of interactions of users and items,

    N = D_u^-a R D_i^-b        V = the right singular vectors of the k largest singular values of N

the user's vector is r_u D_i^-b V and the table of item factors D_i^b V (P. Cremonesi, Y. Koren and R. Turrin,
"Performance of recommender algorithms on top-N recommendation tasks", RecSys 2010; with a = b = 1/2, N is that of a
random walk between users and items). So scores are r_u, projected on k directions in a space where popular items count
less, and returned to the space of r_u. The factor D_u^-a of a user is left out: it changes no order.

A user's vector is a sum of the rows of D_i^-b V, the input factors, in which later interactions weigh more
(`service.models.history.weights`). N is of all interactions alike, without dislikes. tests/reference/pure_svd.py is the
slow equivalent.

Invariant: the result depends on data, hyperparameters and generator alone, and on no number of threads or workers, see
`kernels.sparse.randomised_svd`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.models.fold_in.settings import FoldIn
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.registry import Algorithm
from service.training.algorithms.weighted_history import WeightedHistory
from service.training.assembly import assemble, history, history_entries
from service.training.checkpoints.basis import BasisCheckpoint
from service.training.checkpoints.fit import FitCheckpoint
from service.training.distributed.sparse_tables import leading_vectors
from service.training.distributed.user_sums import folded_in
from service.training.entry_weights import positives
from service.training.interactions import Float32, Float64, Int64, Interactions, Progress

NAME: Final = "pure_svd"
# Without a setting there are as many factors as a thirtieth of the users or of the items, whichever are fewer: 128 for
# MovieLens 1M, about 1,000 for Gowalla, where more go on helping.
_ROWS_PER_FACTOR: Final = 30
_LEAST_FACTORS: Final = 32
_MOST_FACTORS: Final = 1024
_FACTOR_STEP: Final = 16
# Bounds of that number, for both tables together: 1 GiB of float32, and products that take some ten seconds.
_MOST_NUMBERS: Final = 1 << 28
_MOST_PRODUCTS: Final = 1e11


@dataclass(frozen=True)
class PureSvdConfig(WeightedHistory):
    """Hyperparameters of PureSVD."""

    n_factors: Annotated[
        int | None,
        {"unit": "factors", "least": 1, "most": 8192, "search": (16, 1024, "log")},
        "Factors per user and item; if none, a thirtieth of the users or of the items, from 32 to 1,024.",
    ] = None
    user_exponent: Annotated[
        float,
        {"least": 0, "most": 2, "search": (0.0, 1.0)},
        "Power of a user's number of interactions by which these are divided: at 0 heavy users count most.",
    ] = 0.5
    item_exponent: Annotated[
        float,
        {"least": 0, "most": 2, "search": (0.1, 0.6)},
        "Power of an item's number of interactions by which these are divided: at 0 popular items count most.",
    ] = 0.5


def fit(data: Interactions, config: PureSvdConfig, rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit PureSVD; of ratings, it counts only which are dislikes.

    Raises:
        RunError: A checkpoint cannot be written, or workers failed.
    """
    weights = config.history_weights(data)
    liked = positives(data, weights)
    of_items = np.bincount(liked.item_rows, minlength=len(data.items))
    normalised = _normalised(history(liked), of_items, config)
    checkpoint = FitCheckpoint(NAME, data, config, rng)
    basis = BasisCheckpoint(checkpoint, dict(checkpoint.read()), rng)
    found = leading_vectors(normalised, n_factors(config, *normalised.shape), rng, progress, basis)
    input_factors = _scaled(found.vectors, _powers(of_items, -config.item_exponent))
    how = FoldIn("decayed_sum", weights)
    return assemble(
        data,
        NAME,
        config,
        user_factors=folded_in(history_entries(data), how, input_factors),
        item_factors=_scaled(found.vectors, _powers(of_items, config.item_exponent)),
        input_factors=input_factors,
        fold_in=how,
    )


ALGORITHMS: Final = {NAME: Algorithm(PureSvdConfig, fit, kind="ranking")}


def n_factors(config: PureSvdConfig, n_users: int, n_items: int) -> int:
    """Return the number of factors: the setting, or one that grows with the data."""
    if config.n_factors is not None:
        return config.n_factors
    in_steps = -(-min(n_users, n_items) // (_ROWS_PER_FACTOR * _FACTOR_STEP)) * _FACTOR_STEP
    n_rows = n_users + n_items
    affordable = min(_MOST_NUMBERS // n_rows, int((_MOST_PRODUCTS / n_rows) ** 0.5))
    return max(1, min(max(in_steps, _LEAST_FACTORS), _MOST_FACTORS, affordable))


def _normalised(seen: csr_array, of_items: Int64, config: PureSvdConfig) -> csr_array:
    """Return D_u^-a R D_i^-b as float32 CSR, given the number of interactions of each item."""
    of_users = np.diff(seen.indptr)
    values = np.repeat(_powers(of_users, -config.user_exponent), of_users)
    values *= _powers(of_items, -config.item_exponent)[seen.indices]
    return csr_array((values.astype(np.float32), seen.indices, seen.indptr), shape=seen.shape)


def _powers(counts: NDArray[np.integer[Any]], exponent: float) -> Float64:
    """Raise counts, int (n,), to a power: float64 (n,); 0 where the count is 0."""
    powers = np.zeros(counts.size)
    np.power(counts.astype(np.float64), exponent, out=powers, where=counts > 0)
    return powers


def _scaled(table: Float32, scales: Float64) -> Float32:
    """Multiply each row of a table, float32 (n, k), by its scale, float64 (n,)."""
    scaled: Float32 = table * scales[:, np.newaxis].astype(np.float32)
    return scaled
