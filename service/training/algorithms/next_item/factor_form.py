"""The factors of `next_item`: its regression in the basis of the users' histories, in time linear in the data.

Let A, (b, n_items), map inputs to the b leading right singular vectors of the histories, normalised by the degrees of
users and items. The weights of the inputs are restricted to B = A' W, a reduced-rank regression (A. J. Izenman,
"Reduced-rank regression for the multivariate linear model", Journal of Multivariate Analysis 5(2), 1975, whose rank is
that of the basis here):

    W = (A G A' + A diag(penalties) A')^-1 A C

with the statistics of `kernels.next_item.decayed_tables`. The rows of A' are the input factors, whose decayed sum is a
user, and the columns of W the item factors. Neither a table of items by items nor one of interactions by inputs is in
memory.
"""

from typing import Final, NamedTuple

import numpy as np
import scipy.linalg
from scipy.sparse import csr_array

from service.errors import TrainingDiverged
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.next_item.decayed_pairs import PairWeights
from service.training.algorithms.kernels.next_item.item_sequences import Sequences
from service.training.checkpoints.basis import BasisCheckpoint
from service.training.distributed.decayed_tables import statistics_in_basis
from service.training.distributed.sparse_tables import leading_vectors
from service.training.interactions import Float32, Float64, no_progress

# Power of an item's degree by which it is divided in the basis: .25 ranks the next item best, .5 items further ahead.
_ITEM_EXPONENT: Final = 0.25
_USER_EXPONENT: Final = 0.5
# The rank regularises, too.
_PENALTY_SHARE: Final = 0.3


class Factors(NamedTuple):
    """Input factors and item factors, float32 (n_items, k) each."""

    inputs: Float32
    items: Float32


def basis(
    data: Sequences, n_factors: int, rng: np.random.Generator, checkpoint: BasisCheckpoint | None = None
) -> Float32:
    """Return the transpose of A, float32 (n_items, k) for k of at most `n_factors`."""
    counts, lengths = data.counts, np.diff(data.starts)
    scales = np.zeros(data.n_items)
    np.power(counts, -_ITEM_EXPONENT, out=scales, where=counts > 0, dtype=np.float64)
    values = np.maximum(lengths, 1)[data.users] ** -_USER_EXPONENT * scales[data.items]
    shape = (lengths.size, data.n_items)
    # Sorting would bring the sequences themselves out of order.
    histories = csr_array((values.astype(np.float32), data.items.copy(), data.starts.astype(np.int32)), shape=shape)
    histories.sort_indices()
    vectors = leading_vectors(histories, n_factors, rng, no_progress, checkpoint).vectors
    return np.ascontiguousarray(vectors * scales[:, np.newaxis].astype(np.float32))


def fit(data: Sequences, how: PairWeights, penalties: Float64, scales: Float64, inputs: Float32) -> Factors:
    """Solve for the item factors, given the input factors, float32 (n_items, k).

    Args:
        penalties: Float64 (n_items,), above 0.
        scales: Float64 (n_items,), the factor of the scores of each target.

    Raises:
        TrainingDiverged: The regression has no solution in the available precision.
    """
    gram, cross = statistics_in_basis(data, how, inputs)
    penalty = (inputs * (_PENALTY_SHARE * penalties[:, np.newaxis])).T @ inputs.astype(np.float64)
    with threads.one_blas_thread():
        try:
            factor = scipy.linalg.cho_factor(gram + penalty, lower=True, check_finite=False)
        except np.linalg.LinAlgError as error:
            raise TrainingDiverged(
                "next_item cannot solve its regression in the available precision; raise reg."
            ) from error
        items = scipy.linalg.cho_solve(factor, cross.T.astype(np.float64), check_finite=False).T
    return Factors(inputs, np.ascontiguousarray(items * scales[:, np.newaxis], dtype=np.float32))
