"""EASE: what has been seen speaks for every other item, by the best linear weights there are.

With X the users' histories of zeros and ones, the weights B minimise |X - X B|^2 + reg |B|^2 with a diagonal of zeros,
so that no item speaks for itself. That has a solution in closed form (H. Steck, "Embarrassingly shallow autoencoders
for sparse data", WWW 2019):

    P = (X'X + reg I)^-1        B[j, i] = -P[j, i] / P[i, i]

What is served are the largest weights of all, so many that every item has `n_neighbours` on average: on MovieLens 1M
that costs less accuracy than as many for each item, since the weights of popular items are worth more.

Invariants: the weights are a function of data and settings alone; linear algebra runs on one thread, because the sums
of several would be cut by how many they are, and of equal weights those of lower rows stay. One dense matrix of items
by items is held, once, and a fit that has no room for it is refused before it begins.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs

from service.errors import RunError, TrainingDiverged
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training import memory_budget
from service.training.algorithms import hyperparameters
from service.training.algorithms.ease_downdate import LeftOut
from service.training.algorithms.hyperparameters import Settings
from service.training.algorithms.kernels import threads
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbour_lists import item_neighbourhood
from service.training.algorithms.registry import Algorithm, Listing
from service.training.assembly import assemble, history
from service.training.interactions import Float32, Int32, Int64, Interactions, Progress

NAME: Final = "ease"
# Beyond this size single precision, which halves it, is worth its rounding.
_DOUBLE_BYTES: Final = 2 << 30
_BLOCK_ITEMS: Final = 64
_STEPS: Final = 4
# Every block counts for itself, in half a MiB.
_COUNTING_BLOCKS: Final = 16
_HALF_BITS: Final = 16
# A weight that is kept, its place and the row's pointer, with room for the copy that the snapshot may take.
_KEPT_BYTES: Final = 16


@dataclass(frozen=True)
class EaseConfig(Settings):
    """Settings of EASE."""

    reg: Annotated[
        float, {"least": 1e-3, "most": 1e9, "search": (10, 10_000, "log")}, "Regularisation of the weights."
    ] = 500.0
    n_neighbours: Annotated[
        int,
        {"unit": "items", "least": 1, "most": 1_000_000},
        "How many other items speak for an item on average; the largest weights of all are kept, positive or negative.",
    ] = 500


def fit(data: Interactions, config: EaseConfig, _rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Solve for the weights, and keep the largest.

    Args:
        data: At least one interaction; how it was rated does not matter.
        config: The settings.
        _rng: Not needed, nothing is drawn.
        progress: Told of the four steps: counting, factorising, inverting, choosing.

    Returns:
        The model; an item that the data's rows do not name has no neighbours.

    Raises:
        RunError: There is not enough memory.
        TrainingDiverged: The matrix cannot be inverted in the precision that there is room for.
    """
    snapshot, _ = _solved(data, config, progress)
    return snapshot


def fit_measured(
    data: Interactions, hidden: Int64, config: EaseConfig, _rng: np.random.Generator, progress: Progress
) -> tuple[ModelSnapshot, Listing]:
    """Fit everything, and return what would be listed without some interactions of the user in question.

    Args:
        data: As for `fit`, and so are the others.
        hidden: Int64 (m,), positions in `data`.
        config: The settings.
        _rng: Not needed.
        progress: Told of the steps.
    """
    snapshot, inverse = _solved(data, config, progress)
    if snapshot.neighbourhood is None:
        raise AssertionError("EASE is served by neighbours")
    kept = np.abs(snapshot.neighbourhood.weights.data)
    is_all = kept.size < config.n_neighbours * len(data.items)
    return snapshot, LeftOut(data, hidden, inverse, 0.0 if is_all else float(kept.min())).lists


ALGORITHM: Final = Algorithm(EaseConfig, fit, kind="ranking", fit_measured=fit_measured)


def _solved(data: Interactions, config: EaseConfig, progress: Progress) -> tuple[ModelSnapshot, NDArray[Any]]:
    """Return the model, and P, (n_items, n_items)."""
    n_items = len(data.items)
    dtype = np.float64 if 8 * n_items**2 <= _DOUBLE_BYTES else np.float32
    _require_room(n_items, config, np.dtype(dtype).itemsize)
    progress("fit", 0, _STEPS)
    matrix = _pair_counts(data, dtype)
    matrix.reshape(-1)[:: n_items + 1] += config.reg
    progress("fit", 1, _STEPS)
    _invert(matrix, config, progress)
    progress("fit", 3, _STEPS)
    neighbourhood = _largest(matrix, config.n_neighbours * n_items)
    progress("fit", _STEPS, _STEPS)
    return assemble(data, algorithm=NAME, settings=hyperparameters.as_json(config), neighbourhood=neighbourhood), matrix


def _require_room(n_items: int, config: EaseConfig, item_bytes: int) -> None:
    n_kept = min(config.n_neighbours, n_items) * n_items
    needed_bytes = item_bytes * n_items**2 + _KEPT_BYTES * n_kept
    available_bytes = memory_budget.available_bytes()
    if needed_bytes > available_bytes:
        raise RunError(
            f"{NAME} needs {needed_bytes / 2**30:.1f} GiB of memory for {n_items:,} items, and there are "
            f"{available_bytes / 2**30:.1f} GiB: leave out rare items, or use item_knn"
        )


def _pair_counts(data: Interactions, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Return the lower triangle of X'X, (n_items, n_items), with zeros above; counts are exact up to 2^24."""
    by_user = history(data)
    by_item = by_user.T.tocsr()
    n_items = by_item.shape[0]
    matrix = np.zeros((n_items, n_items), dtype=dtype)

    def count(start: int, stop: int) -> None:
        _count_pairs(start, stop, by_item.indptr, by_item.indices, by_user.indptr, by_user.indices, matrix)

    threads.run_in_blocks(count, n_items, _BLOCK_ITEMS)
    return matrix


@compiled
def _count_pairs(
    start: int,
    stop: int,
    item_starts: Int32,
    item_users: Int32,
    user_starts: Int32,
    user_items: Int32,
    matrix: NDArray[Any],
) -> None:  # pragma: no cover  # compiled; tests hold it to the reference
    """Count for items start to stop how many users have seen each of them and another one of no later row."""
    for i in range(start, stop):
        counts = matrix[i]
        for place in range(item_starts[i], item_starts[i + 1]):
            u = item_users[place]
            for other in range(user_starts[u], user_starts[u + 1]):
                j = user_items[other]
                if j > i:
                    break
                counts[j] += 1


def _invert(matrix: NDArray[Any], config: EaseConfig, progress: Progress) -> None:
    """Replace the lower triangle of a symmetric matrix by its whole inverse, in place."""
    routines: Any = get_lapack_funcs(("potrf", "potri"), dtype=matrix.dtype)
    factorise, invert = routines
    with threads.one_blas_thread():
        # LAPACK counts in columns, and takes our lower triangle for its upper one.
        inverse, fault = factorise(matrix.T, lower=0, overwrite_a=1, clean=0)
        progress("fit", 2, _STEPS)
        if not fault:
            inverse, fault = invert(inverse, lower=0, overwrite_c=1)
    diagonal = matrix.diagonal()
    # A sum sees every NaN and infinity.
    if fault or not np.isfinite(matrix.sum(dtype=np.float64)) or diagonal.min() <= 0:
        raise TrainingDiverged(f"{NAME} cannot invert its matrix of items with reg={config.reg:g}: raise reg")
    if not np.shares_memory(inverse, matrix):
        raise AssertionError("LAPACK took a copy of the matrix")

    def mirror(start: int, stop: int) -> None:
        for at in range(0, start, _BLOCK_ITEMS):
            matrix[at : at + _BLOCK_ITEMS, start:stop] = matrix[start:stop, at : at + _BLOCK_ITEMS].T
        corner = matrix[start:stop, start:stop]
        corner += np.tril(corner, -1).T - np.triu(corner, 1)

    threads.run_in_blocks(mirror, len(matrix), _BLOCK_ITEMS)


class _Cut(NamedTuple):
    """Which weights are kept: those whose |weight| has more than `bits`, and the first `n_equal` of those with as many.

    The bits of a positive float32, read as a whole number, have the order of the floats.
    """

    bits: int
    n_equal: int


def _largest(inverse: NDArray[Any], n_kept: int) -> Neighbourhood:
    """Keep the largest weights.

    Args:
        inverse: (n_items, n_items), P.
        n_kept: How many weights to keep at most.
    """
    n_items = len(inverse)
    scales = -1 / inverse.diagonal()
    cut = _cut(inverse, scales, n_kept)
    n_above, n_equal = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)

    def count(start: int, stop: int) -> None:
        _count_kept(start, stop, inverse, scales, cut.bits, n_above, n_equal)

    threads.run_in_blocks(count, n_items, _BLOCK_ITEMS)
    n_equal = np.clip(cut.n_equal - (np.cumsum(n_equal) - n_equal), 0, n_equal)
    indptr = np.zeros(n_items + 1, dtype=np.int64)
    np.cumsum(n_above + n_equal, out=indptr[1:])
    indices, weights = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)

    def take(start: int, stop: int) -> None:
        _take_kept(start, stop, inverse, scales, cut.bits, n_equal, indptr, indices, weights)

    threads.run_in_blocks(take, n_items, _BLOCK_ITEMS)
    return item_neighbourhood(weights, indices, n_above + n_equal)


def _cut(inverse: NDArray[Any], scales: NDArray[Any], n_kept: int) -> _Cut:
    """Find the weight of rank `n_kept` by counting the upper halves of all weights' bits, then the lower ones."""
    upper = _counts(inverse, scales, -1)
    if upper.sum() <= n_kept:
        return _Cut(0, 0)
    half, wanted = _rank(upper, n_kept)
    rest, wanted = _rank(_counts(inverse, scales, half), wanted)
    return _Cut(half << _HALF_BITS | rest, wanted)


def _rank(counts: Int64, wanted: int) -> tuple[int, int]:
    """Return the bin, counted from the top, where the `wanted`-th is, and how many of that bin are wanted."""
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, wanted))
    above = int(from_top[place - 1]) if place else 0
    return counts.size - 1 - place, wanted - above


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
    """Return the bits of |B[j, i]|, as the number that they are; 0 on the diagonal."""
    return 0 if i == j else int(np.float32(abs(inverse[j, i] * scales[i])).view(np.uint32))


@compiled
def _count_halves(
    start: int, stop: int, inverse: NDArray[Any], scales: NDArray[Any], upper_half: int, counts: Int64
) -> None:  # pragma: no cover  # compiled
    """Count weights that are not 0 by the upper half of their bits, or by the lower where the upper is `upper_half`."""
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
    start: int, stop: int, inverse: NDArray[Any], scales: NDArray[Any], cut_bits: int, n_above: Int64, n_equal: Int64
) -> None:  # pragma: no cover  # compiled
    """Count in each row the weights above the cut, and those on it."""
    for j in range(start, stop):
        for i in range(inverse.shape[0]):
            bits = _bits(inverse, scales, j, i)
            n_above[j] += bits > cut_bits
            n_equal[j] += bits == cut_bits


@compiled
def _take_kept(
    start: int,
    stop: int,
    inverse: NDArray[Any],
    scales: NDArray[Any],
    cut_bits: int,
    n_equal: Int64,
    indptr: Int64,
    indices: Int32,
    weights: Float32,
) -> None:  # pragma: no cover  # compiled
    """Write the weights above the cut of each row, and the first `n_equal` of those on it."""
    for j in range(start, stop):
        place = indptr[j]
        left = n_equal[j]
        for i in range(inverse.shape[0]):
            bits = _bits(inverse, scales, j, i)
            if bits < cut_bits or (bits == cut_bits and left == 0):
                continue
            if bits == cut_bits:
                left -= 1
            indices[place] = i
            weights[place] = inverse[j, i] * scales[i]
            place += 1
