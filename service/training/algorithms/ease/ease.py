"""EASE: linear item-to-item weights with the least squared error, in closed form.

With X the 0/1 histories of users, without what they dislike, the weights B minimise |X - X B|^2 + reg |B|^2 with a
diagonal of zeros (H. Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019). The solution is

    P = (X'X + reg I)^-1        B[j, i] = -P[j, i] / P[i, i]

A score of item i is the sum of B[j, i] over the history of the user, each times its weight (`weighted_history`).

The served model keeps the largest weights of all, `n_neighbours` per item on average. On MovieLens 1M this loses less
accuracy than a fixed number per item, since weights of popular items matter more. tests/reference/item_to_item.py is
the slow equivalent.

Invariants: the weights depend on data and hyperparameters alone: linear algebra runs on one thread, and ties keep the
lower rows. One dense matrix of items by items is in memory, and a fit without room for it is refused before it begins.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import RunError
from service.models.fold_in.settings import FoldIn
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training import memory_budget
from service.training.algorithms.ease import inversion
from service.training.algorithms.ease.downdate import DowndatedLists
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbours.lists import item_neighbourhood
from service.training.algorithms.registry import Algorithm, ListTopN
from service.training.algorithms.weighted_history import WeightedHistory
from service.training.assembly import assemble, history
from service.training.entry_weights import positives
from service.training.interactions import Float32, Int32, Int64, Interactions, Progress

NAME: Final = "ease"
# Above this size the matrix is in single precision.
_DOUBLE_LIMIT_BYTES: Final = 2 << 30
_BLOCK_ITEMS: Final = 64
_STEPS: Final = inversion.N_STEPS + 1
# Each block has its own counts, of half a MiB.
_COUNTING_BLOCKS: Final = 16
_HALF_BITS: Final = 16
# A kept weight, its index and the row pointer, and the copy that the snapshot may make.
_KEPT_BYTES: Final = 16


@dataclass(frozen=True)
class EaseConfig(WeightedHistory):
    """Hyperparameters of EASE."""

    reg: Annotated[
        float, {"least": 1e-3, "most": 1e9, "search": (10, 10_000, "log")}, "Regularisation of the weights."
    ] = 500.0
    n_neighbours: Annotated[
        int,
        {"unit": "items", "least": 1, "most": 1_000_000},
        "Mean number of neighbours per item; the largest weights of all are kept.",
    ] = 500


def fit(data: Interactions, config: EaseConfig, _rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Solve for the weights, and keep the largest.

    Raises:
        RunError: There is not enough memory.
        TrainingDiverged: The matrix cannot be inverted in the available precision.
    """
    snapshot, _ = solve(data, config, progress)
    return snapshot


def fit_measured(
    data: Interactions, hidden: Int64, config: EaseConfig, _rng: np.random.Generator, progress: Progress
) -> tuple[ModelSnapshot, ListTopN]:
    """Fit all data, and return the lists of a model without the hidden interactions; see `Algorithm.fit_measured`."""
    snapshot, inverse = solve(data, config, progress)
    if snapshot.neighbourhood is None:
        raise AssertionError("EASE returned a model without neighbours.")
    kept = np.abs(snapshot.neighbourhood.weights.data)
    keeps_all = kept.size < config.n_neighbours * len(data.items)
    min_weight = 0.0 if keeps_all else float(kept.min())
    return snapshot, DowndatedLists(data, hidden, inverse, min_weight, config.history_weights(data)).lists


ALGORITHMS: Final = {NAME: Algorithm(EaseConfig, fit, kind="ranking", fit_measured=fit_measured)}


def solve(
    data: Interactions, config: EaseConfig, progress: Progress, double_limit_bytes: int = _DOUBLE_LIMIT_BYTES
) -> tuple[ModelSnapshot, NDArray[Any]]:
    """Return the model and P, (n_items, n_items)."""
    n_items = len(data.items)
    dtype = np.float64 if 8 * n_items**2 <= double_limit_bytes else np.float32
    n_users = int(np.unique(data.user_rows).size)
    by_users = inversion.is_quicker_by_users(n_users, n_items)
    _require_memory(n_items, n_users if by_users else 0, config, np.dtype(dtype).itemsize)
    progress("fit", 0, _STEPS)
    inverse = inversion.by_users if by_users else inversion.by_items
    weights = config.history_weights(data)
    matrix = inverse(history(positives(data, weights)), config.reg, dtype, progress)
    neighbourhood = largest_weights(matrix, config.n_neighbours * n_items)
    progress("fit", _STEPS, _STEPS)
    how = FoldIn("neighbour_sum", weights)
    return assemble(data, NAME, config, neighbourhood=neighbourhood, fold_in=how), matrix


def _require_memory(n_items: int, n_rows: int, config: EaseConfig, item_bytes: int) -> None:
    """Refuse a fit without room for its matrix, the kept weights, and a table of items by rows in double precision."""
    n_kept = min(config.n_neighbours, n_items) * n_items
    needed_bytes = item_bytes * n_items**2 + 8 * n_items * n_rows + _KEPT_BYTES * n_kept
    available_bytes = memory_budget.available_bytes()
    if needed_bytes > available_bytes:
        raise RunError(
            f"{NAME} needs {needed_bytes / 2**30:.1f} GiB of memory for {n_items:,} items, and there are "
            f"{available_bytes / 2**30:.1f} GiB: leave out rare items, or use item_knn."
        )


class _Threshold(NamedTuple):
    """Selects weights with |weight| above `bits`, and the first `n_equal` of those equal to it.

    The bits of positive float32 numbers, read as integers, have the order of the numbers.
    """

    bits: int
    n_equal: int


def largest_weights(inverse: NDArray[Any], n_kept: int) -> Neighbourhood:
    """Return at most the `n_kept` largest weights of an inverse P, (n_items, n_items)."""
    n_items = len(inverse)
    scales = -1 / inverse.diagonal()
    threshold = _threshold(inverse, scales, n_kept)
    n_above, n_equal = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)

    def count(start: int, stop: int) -> None:
        _count_kept(start, stop, inverse, scales, threshold.bits, n_above, n_equal)

    threads.run_in_blocks(count, n_items, _BLOCK_ITEMS)
    n_equal = np.clip(threshold.n_equal - (np.cumsum(n_equal) - n_equal), 0, n_equal)
    indptr = np.zeros(n_items + 1, dtype=np.int64)
    np.cumsum(n_above + n_equal, out=indptr[1:])
    indices, weights = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)

    def write(start: int, stop: int) -> None:
        _write_kept(start, stop, inverse, scales, threshold.bits, n_equal, indptr, indices, weights)

    threads.run_in_blocks(write, n_items, _BLOCK_ITEMS)
    return item_neighbourhood(weights, indices, n_above + n_equal)


def _threshold(inverse: NDArray[Any], scales: NDArray[Any], n_kept: int) -> _Threshold:
    """Find the weight of rank `n_kept`: count the upper halves of the bits of all weights, then the lower halves."""
    upper = _counts(inverse, scales, -1)
    if upper.sum() <= n_kept:
        return _Threshold(0, 0)
    half, rank = _bin_of(upper, n_kept)
    rest, rank = _bin_of(_counts(inverse, scales, half), rank)
    return _Threshold(half << _HALF_BITS | rest, rank)


def _bin_of(counts: Int64, rank: int) -> tuple[int, int]:
    """Return the bin of the `rank`-th largest weight, and the rank within the bin."""
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, rank))
    above = int(from_top[place - 1]) if place else 0
    return counts.size - 1 - place, rank - above


def _counts(inverse: NDArray[Any], scales: NDArray[Any], upper_half: int) -> Int64:
    n_items = len(inverse)
    size = -(-n_items // _COUNTING_BLOCKS)
    counts = np.zeros((-(-n_items // size), 1 << _HALF_BITS), dtype=np.int64)

    def count(start: int, stop: int) -> None:
        _count_halves(start, stop, inverse, scales, upper_half, counts[start // size])

    threads.run_in_blocks(count, n_items, size)
    total: Int64 = counts.sum(axis=0)
    return total


@compiled
def _bits(inverse: NDArray[Any], scales: NDArray[Any], j: int, i: int) -> int:  # pragma: no cover  # compiled
    """Return the bits of |B[j, i]| as an integer; 0 on the diagonal."""
    return 0 if i == j else int(np.float32(abs(inverse[j, i] * scales[i])).view(np.uint32))


@compiled
def _count_halves(
    start: int, stop: int, inverse: NDArray[Any], scales: NDArray[Any], upper_half: int, counts: Int64
) -> None:  # pragma: no cover  # compiled
    """Count nonzero weights by the upper half of their bits, or by the lower half if the upper is `upper_half`."""
    for j in range(start, stop):
        for i in range(inverse.shape[0]):
            bits = _bits(inverse, scales, j, i)
            if bits == 0:
                continue
            if upper_half < 0:
                counts[bits >> 16] += 1
            elif bits >> 16 == upper_half:
                counts[bits & 0xFFFF] += 1


@compiled
def _count_kept(
    start: int,
    stop: int,
    inverse: NDArray[Any],
    scales: NDArray[Any],
    threshold_bits: int,
    n_above: Int64,
    n_equal: Int64,
) -> None:  # pragma: no cover  # compiled
    """Count the weights above and at the threshold in each row."""
    for j in range(start, stop):
        for i in range(inverse.shape[0]):
            bits = _bits(inverse, scales, j, i)
            n_above[j] += bits > threshold_bits
            n_equal[j] += bits == threshold_bits


@compiled
def _write_kept(
    start: int,
    stop: int,
    inverse: NDArray[Any],
    scales: NDArray[Any],
    threshold_bits: int,
    n_equal: Int64,
    indptr: Int64,
    indices: Int32,
    weights: Float32,
) -> None:  # pragma: no cover  # compiled
    """Write the weights above the threshold of each row, and the first `n_equal` of those at it."""
    for j in range(start, stop):
        place = indptr[j]
        left = n_equal[j]
        for i in range(inverse.shape[0]):
            bits = _bits(inverse, scales, j, i)
            if bits < threshold_bits or (bits == threshold_bits and left == 0):
                continue
            if bits == threshold_bits:
                left -= 1
            indices[place] = i
            weights[place] = inverse[j, i] * scales[i]
            place += 1
