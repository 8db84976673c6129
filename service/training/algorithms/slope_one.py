"""Slope One: mean differences between the ratings of pairs of items.

With dev(i, j) the mean of r_vi - r_vj over all users v that rated both, the prediction is

    mean of u's ratings + mean of dev(i, j) over the items j that u rated and that share a user with i

(Lemire and Maclachlan, "Slope one predictors for online rating-based collaborative filtering", SIAM Data Mining 2005;
the equation for dense data, which scikit-surprise implements). Without such j it is u's mean, and for an unknown user
the mean of all ratings. scikit-surprise also predicts that mean for an unknown item, and includes j = i for pairs of
its training set; here j differs from i. tests/reference/slope_one.py is the slow equivalent.

Invariant: `predict` is exact, from the history alone. The served model keeps for each item the n_neighbours items with
the most common users; ties keep the smaller row. To approximate the others, dev(i, j) is split into d(i) - d(j) and a
residual, where d(i) is the mean of i's ratings above the means of its raters: d(i) and the mean of d(j) over u's items
become biases, and neighbours average the residuals. With all neighbours kept, this is the definition.

All items cost the sum over users of their squared numbers of ratings.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray

from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import rating_fold_in
from service.training.algorithms.kernels.compiled import compiled
from service.training.algorithms.kernels.neighbours.lists import BLOCK_ROWS, neighbour_lists, push_bounded, sorted_rows
from service.training.algorithms.kernels.sparse.rows import PairGroups, SparseRows, group_pairs, row_means, sparse_rows
from service.training.algorithms.kernels.threads import run_in_blocks
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble, history
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Float32, Float64, Int32, Int64, Interactions, Progress

NAME: Final = "slope_one"


@dataclass(frozen=True)
class SlopeOneConfig(Hyperparameters):
    """Hyperparameters of Slope One."""

    n_neighbours: Annotated[
        int, {"unit": "items", "least": 1, "most": 100_000}, "Neighbours per item in the served model."
    ] = 100


def fit(data: Interactions, config: SlopeOneConfig, _rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
    """Fit Slope One: biases, and the residuals of deviations between items."""
    ratings = history(data)
    ratings_by_item = ratings.T.tocsr()
    by_user, by_item = sparse_rows(ratings), sparse_rows(ratings_by_item)

    def write(start: int, stop: int, neighbours: Int32, weights: Float32, counts: Int64) -> None:
        _most_often_together(by_item, by_user, start, stop, neighbours, weights, counts)

    residuals = neighbour_lists(write, len(data.items), config.n_neighbours, progress)
    mean = ratings.data.mean(dtype=np.float64)
    user_bias = row_means(ratings, ratings.data - mean)
    item_bias = row_means(ratings_by_item, by_item.values - mean - user_bias[by_item.indices])
    own_bias = np.repeat(item_bias, np.diff(residuals.indptr))
    residuals.data = (residuals.data - own_bias + item_bias[residuals.indices]).astype(np.float32)
    return assemble(
        data,
        NAME,
        config,
        user_bias=(user_bias - row_means(ratings, item_bias[by_user.indices])).astype(np.float32),
        item_bias=item_bias.astype(np.float32),
        global_mean=float(mean),
        # A row of weights holds the items whose neighbour it is, a row of `residuals` its neighbours.
        neighbourhood=Neighbourhood("items", "mean", "seen", sorted_rows(residuals.T.tocsr())),
        fold_in=rating_fold_in.of_neighbours(biased=True, residuals=False),
    )


def predict(snapshot: ModelSnapshot, user_rows: NDArray[np.int32], item_rows: NDArray[np.int32]) -> NDArray[np.float64]:
    """Predict the rating of each pair exactly, from the history of the model; see `Algorithm.predict`."""
    by_user, by_item = sparse_rows(snapshot.history), sparse_rows(snapshot.seen_by)
    pairs = group_pairs(item_rows)
    predicted = np.zeros(item_rows.size)

    def work(start: int, stop: int) -> None:
        _mean_deviations(by_item, by_user, pairs, start, stop, user_rows, predicted)

    run_in_blocks(work, pairs.rows.size, BLOCK_ROWS)
    mean = np.float64(snapshot.global_mean)
    predicted += row_means(snapshot.history, by_user.values - mean)[user_rows]
    predicted += mean
    return np.clip(predicted, snapshot.rating_min, snapshot.rating_max, out=predicted)


ALGORITHMS: Final = {NAME: Algorithm(SlopeOneConfig, fit, predict=predict)}


@compiled
def _compare(
    by_item: SparseRows, by_user: SparseRows, i: int, sums: Float64, touched: Int32
) -> int:  # pragma: no cover  # compiled; tests/reference/slope_one.py
    """Compare one item with all items that share a user with it.

    Args:
        by_item: The ratings, (n_items, n_users).
        by_user: The ratings, (n_users, n_items).
        sums: Output, float64 (n_items, 2), zeros before: the number of common users, and the sum of differences.
        touched: Output, int32 (n_items + 1,): the items that share a user, i included.

    Returns:
        The number of touched items.
    """
    n_touched = 0
    for p in range(by_item.indptr[i], by_item.indptr[i + 1]):
        u, rating = by_item.indices[p], np.float64(by_item.values[p])
        for q in range(by_user.indptr[u], by_user.indptr[u + 1]):
            j = by_user.indices[q]
            # Keeps j in `touched` on its first common user; a branch would be slower.
            touched[n_touched] = j
            n_touched += sums[j, 0] == 0
            sums[j, 0] += 1
            sums[j, 1] += rating - by_user.values[q]
    return n_touched


@compiled
def _most_often_together(
    by_item: SparseRows, by_user: SparseRows, start: int, stop: int, neighbours: Int32, weights: Float32, counts: Int64
) -> None:  # pragma: no cover  # compiled; tests/reference/slope_one.py
    """Write the lists of items start to stop; see `kernels.neighbours.lists.WriteLists`."""
    n_items = by_item.indptr.size - 1
    sums, touched = np.zeros((n_items, 2)), np.empty(n_items + 1, np.int32)
    keys, best = np.empty(neighbours.shape[1]), np.empty(neighbours.shape[1], np.int64)
    for i in range(start, stop):
        size = 0
        n_touched = _compare(by_item, by_user, i, sums, touched)
        for t in range(n_touched):
            j = touched[t]
            if j != i:
                size = push_bounded(keys, best, size, sums[j, 0], j)
        for n in range(size):
            j = best[n]
            neighbours[i - start, n] = j
            weights[i - start, n] = sums[j, 1] / sums[j, 0]
        counts[i - start] = size
        for t in range(n_touched):
            sums[touched[t]] = 0


@compiled
def _mean_deviations(
    by_item: SparseRows, by_user: SparseRows, pairs: PairGroups, start: int, stop: int, user_rows: Int32, means: Float64
) -> None:  # pragma: no cover  # compiled; tests/reference/slope_one.py
    """Write the mean deviations of the pairs of `pairs.rows[start:stop]`; 0 if no item of the user shares a user."""
    n_items = by_item.indptr.size - 1
    sums, touched = np.zeros((n_items, 2)), np.empty(n_items + 1, np.int32)
    for m in range(start, stop):
        i = pairs.rows[m]
        n_touched = _compare(by_item, by_user, i, sums, touched)
        for t in range(n_touched):
            j = touched[t]
            sums[j, 1] /= sums[j, 0]
        for n in range(pairs.bounds[m], pairs.bounds[m + 1]):
            u = user_rows[pairs.order[n]]
            total, count = 0.0, 0
            for q in range(by_user.indptr[u], by_user.indptr[u + 1]):
                j = by_user.indices[q]
                if j != i and sums[j, 0] > 0:
                    total += sums[j, 1]
                    count += 1
            if count:
                means[pairs.order[n]] = total / count
        for t in range(n_touched):
            sums[touched[t]] = 0
