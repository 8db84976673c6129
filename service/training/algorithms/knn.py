"""k nearest neighbours: the weighted mean of the ratings of similar users for i, or of u's ratings of similar items.

With a baseline b(u, i) and the k users v most similar to u that rated i, the prediction is

    b(u, i) + sum of sim(u, v) (r_vi - b(v, i)) / sum of sim(u, v)

and b(u, i) for fewer than min_k neighbours, an unknown user or an unknown item; item neighbours are symmetrical
(Herlocker, Konstan, Borchers and Riedl, "An algorithmic framework for performing collaborative filtering", SIGIR 1999;
`kernels.neighbours.search` defines the similarities). There is one algorithm for each baseline:

    knn_basic       the mean of all ratings, which cancels out with neighbours
    knn_means       the mean rating of each user, or of each item if items are neighbours
    knn_baseline    the mean and the biases of users and items (Koren, "Factor in the neighbors: scalable and accurate
                    collaborative filtering", ACM TKDD 4(1), 2010, section 2.2)

Names and defaults of the hyperparameters are those of scikit-surprise, which predicts the mean of all ratings for
unknown users and items. tests/reference/knn.py is the slow equivalent.

Invariant: `predict` is exact, from the history and the baseline. The served model keeps n_neighbours neighbours per
row, and all of them count, without k and min_k.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.models.fold_in.settings import FoldIn
from service.models.neighbourhood import Neighbourhood
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import baseline, rating_fold_in
from service.training.algorithms.baseline import Baseline, BaselineConfig
from service.training.algorithms.kernels.factors.rating_unit import unit_of
from service.training.algorithms.kernels.neighbours.lists import sorted_rows
from service.training.algorithms.kernels.neighbours.search import SIMILARITIES, ComparedRows, nearest, predict_pairs
from service.training.algorithms.kernels.sparse.rows import group_pairs, row_means, sparse_rows
from service.training.algorithms.registry import Algorithm
from service.training.assembly import assemble, history
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Float32, Interactions, Progress

_BASELINE_PREFIX: Final = "bsl_"


@dataclass(frozen=True)
class KnnConfig(Hyperparameters):
    """Hyperparameters of k nearest neighbours."""

    k: Annotated[
        int,
        {"unit": "neighbours", "least": 1, "most": 1_000_000, "search": (10, 200, "log")},
        "Maximum number of neighbours.",
    ] = 40
    min_k: Annotated[
        int,
        {"unit": "neighbours", "least": 1, "most": 1_000_000, "search": (1, 10)},
        "Minimum number of neighbours; with fewer, the baseline is predicted.",
    ] = 1
    similarity: Annotated[str, {"choices": SIMILARITIES}, "Similarity of two rows."] = "msd"
    user_based: Annotated[bool, {}, "Whether neighbours are users; else items."] = True
    min_support: Annotated[
        int,
        {"unit": "ratings", "least": 1, "most": 1_000_000, "search": (1, 20)},
        "Minimum number of common ratings of neighbours.",
    ] = 1
    shrinkage: Annotated[
        float,
        {"unit": "ratings", "least": 0, "most": 1e6, "search": (1, 1000, "log")},
        "For pearson_baseline: common ratings at which a similarity counts half.",
    ] = 100.0
    n_neighbours: Annotated[
        int, {"unit": "neighbours", "least": 1, "most": 100_000}, "Neighbours per row in the served model."
    ] = 100
    serving_shrinkage: Annotated[
        float,
        {"unit": "ratings", "least": 0, "most": 1e6},
        "In the served model: common ratings at which a similarity counts half.",
    ] = 50.0
    bsl_method: Annotated[str, {"choices": baseline.METHODS}, "Method of the baseline."] = "als"
    bsl_n_epochs: Annotated[
        int | None,
        {"unit": "epochs", "least": 1, "most": 100_000},
        "Epochs of the baseline; if none, 10 for als and 20 for sgd.",
    ] = None
    bsl_reg_u: Annotated[float, {"least": 0, "most": 1e6}, "Of the baseline, for als: regularisation of users."] = 15.0
    bsl_reg_i: Annotated[float, {"least": 0, "most": 1e6}, "Of the baseline, for als: regularisation of items."] = 10.0
    bsl_reg: Annotated[float, {"least": 0, "most": 1000}, "Of the baseline, for sgd: regularisation."] = 0.02
    bsl_learning_rate: Annotated[float, {"least": 0, "most": 10}, "Of the baseline, for sgd: learning rate."] = 0.005


EstimateBaseline = Callable[[csr_array, KnnConfig], Baseline]
"""(ratings, config) -> the baseline; ratings are float32 CSR (n_users, n_items)."""


def _algorithm(name: str, estimate_baseline: EstimateBaseline) -> Algorithm:
    """Return k nearest neighbours with a baseline; with user neighbours it cannot fold users in."""

    def fit(data: Interactions, config: KnnConfig, _rng: np.random.Generator, progress: Progress) -> ModelSnapshot:
        ratings = history(data)
        base = estimate_baseline(ratings, config)
        scale = (data.rating_min, data.rating_max)
        compared = _compared(ratings, ratings.T.tocsr(), config, scale)
        similar = nearest(compared, config.n_neighbours, float(config.serving_shrinkage), progress)
        return assemble(
            data,
            name,
            config,
            user_bias=base.user_bias.astype(np.float32),
            item_bias=base.item_bias.astype(np.float32),
            global_mean=base.mean,
            neighbourhood=Neighbourhood(
                "users" if config.user_based else "items",
                "weighted_mean",
                "residual",
                # A row of item weights holds the items whose neighbour it is, a row of `similar` its neighbours.
                similar if config.user_based else sorted_rows(similar.T.tocsr()),
            ),
            fold_in=None if config.user_based else _fold_in(name, config),
        )

    return Algorithm(KnnConfig, fit, predict=predict)


def predict(snapshot: ModelSnapshot, user_rows: NDArray[np.int32], item_rows: NDArray[np.int32]) -> NDArray[np.float64]:
    """Predict the rating of each pair exactly, from the history of the model; see `Algorithm.predict`."""
    config = KnnConfig(**snapshot.settings)
    by_user, by_item = snapshot.history, snapshot.seen_by
    compared = _compared(by_user, by_item, config, (snapshot.rating_min, snapshot.rating_max))
    biases = (snapshot.user_bias, snapshot.item_bias)
    if config.user_based:
        residuals = _residuals(by_item, snapshot.global_mean, *biases[::-1])
        x_rows, y_rows = user_rows, item_rows
    else:
        residuals = _residuals(by_user, snapshot.global_mean, *biases)
        x_rows, y_rows = item_rows, user_rows
    predicted = predict_pairs(compared, residuals, group_pairs(x_rows), y_rows, config.k, config.min_k)
    predicted += snapshot.user_bias[user_rows]
    predicted += snapshot.item_bias[item_rows]
    predicted += snapshot.global_mean
    return np.clip(predicted, snapshot.rating_min, snapshot.rating_max, out=predicted)


def _fold_in(name: str, config: KnnConfig) -> FoldIn:
    """Return the fold-in with item neighbours, whose baseline has biases of users in `knn_baseline` alone."""
    if name != "knn_baseline":
        return rating_fold_in.of_neighbours(biased=False, residuals=True)
    reg_bias, fixed = baseline.bias_penalties(_baseline_config(config))
    return rating_fold_in.of_neighbours(biased=True, residuals=True, reg_bias=reg_bias, reg_bias_fixed=fixed)


def _mean_baseline(ratings: csr_array, _config: KnnConfig) -> Baseline:
    n_users, n_items = ratings.shape
    return Baseline(float(ratings.data.mean(dtype=np.float64)), np.zeros(n_users), np.zeros(n_items))


def _row_mean_baseline(ratings: csr_array, config: KnnConfig) -> Baseline:
    n_users, n_items = ratings.shape
    mean = ratings.data.mean(dtype=np.float64)
    if config.user_based:
        return Baseline(float(mean), row_means(ratings, ratings.data - mean), np.zeros(n_items))
    by_item = ratings.T.tocsr()
    return Baseline(float(mean), np.zeros(n_users), row_means(by_item, by_item.data - mean))


def _estimated_baseline(ratings: csr_array, config: KnnConfig) -> Baseline:
    """Estimate the baseline with the hyperparameters that begin with bsl_.

    Raises:
        TrainingDiverged: Biases are no longer finite.
    """
    return baseline.estimate(ratings, _baseline_config(config), prefix=_BASELINE_PREFIX)


def _baseline_config(config: KnnConfig) -> BaselineConfig:
    prefix = _BASELINE_PREFIX
    values = {name.removeprefix(prefix): value for name, value in vars(config).items() if name.startswith(prefix)}
    return BaselineConfig(**values)


ALGORITHMS: Final = {
    "knn_basic": _algorithm("knn_basic", _mean_baseline),
    "knn_means": _algorithm("knn_means", _row_mean_baseline),
    "knn_baseline": _algorithm("knn_baseline", _estimated_baseline),
}


def _compared(by_user: csr_array, by_item: csr_array, config: KnnConfig, scale: tuple[float, float]) -> ComparedRows:
    """Return the rows whose similarities are taken, for ratings of a scale (low, high)."""
    sides = (by_user, by_item)
    values: tuple[Float32 | None, Float32 | None] = (None, None)
    if config.similarity == "pearson_baseline":
        mean, user_bias, item_bias = _estimated_baseline(by_user, config)
        values = (_residuals(by_user, mean, user_bias, item_bias), _residuals(by_item, mean, item_bias, user_bias))
    elif config.similarity == "pearson":
        # A correlation does not depend on the zero of the scale, and is most exact near the mean.
        middle = np.rint(by_user.data.mean())
        values = (by_user.data - middle, by_item.data - middle)
    elif config.similarity == "msd" and (factor := unit_of(*scale).factor) != 1:
        # The only one of the four that depends on the unit of ratings.
        by_user_values, by_item_values = ((side.data.astype(np.float64) * factor).astype(np.float32) for side in sides)
        values = (by_user_values, by_item_values)
    user_rows, item_rows = (sparse_rows(matrix, column) for matrix, column in zip(sides, values, strict=True))
    by_x, by_y = (user_rows, item_rows) if config.user_based else (item_rows, user_rows)
    return ComparedRows(by_x, by_y, SIMILARITIES.index(config.similarity), config.min_support, float(config.shrinkage))


def _residuals(matrix: csr_array, mean: float, row_bias: NDArray[Any], column_bias: NDArray[Any]) -> Float32:
    """Return the residuals of ratings above mean and biases: float32 (nnz,), in the order of the matrix."""
    residuals = matrix.data - np.repeat(row_bias.astype(np.float64), np.diff(matrix.indptr))
    residuals -= column_bias[matrix.indices]
    residuals -= mean
    # An overflow becomes infinity, as do predictions from it.
    with np.errstate(over="ignore"):
        rounded: Float32 = residuals.astype(np.float32)
    return rounded
