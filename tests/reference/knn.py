"""Reference of `knn` and its similarities: dense, in float64, from the definitions.

Tables of ratings are float64 (n_users, n_items), with NaN for no rating; names are knn_basic, knn_means or
knn_baseline.
"""

import numpy as np

from service.training.algorithms.baseline import Baseline, BaselineConfig
from service.training.algorithms.knn import KnnConfig
from service.training.interactions import Float64
from tests.reference.baseline import estimate_slowly


def baseline_slowly(name: str, table: Float64, config: KnnConfig) -> Baseline:
    """Return the baseline of one of the three models."""
    mean, n_users, n_items = float(np.nanmean(table)), *table.shape
    if name == "knn_baseline":
        return estimate_slowly(table, _baseline_config(config))
    if name == "knn_basic":
        return Baseline(mean, np.zeros(n_users), np.zeros(n_items))
    if config.user_based:
        return Baseline(mean, _means(table, mean) - mean, np.zeros(n_items))
    return Baseline(mean, np.zeros(n_users), _means(table.T, mean) - mean)


def similarities_slowly(table: Float64, config: KnnConfig) -> Float64:
    """Return the similarity of every two users, or of every two items: float64, zeros on the diagonal."""
    compared = table
    if config.similarity == "pearson_baseline":
        mean, b_user, b_item = estimate_slowly(table, _baseline_config(config))
        compared = table - (mean + b_user[:, np.newaxis] + b_item)
    rows = compared if config.user_based else compared.T
    result = np.zeros((len(rows), len(rows)))
    for one, other in np.ndindex(*result.shape):
        both = ~np.isnan(rows[one]) & ~np.isnan(rows[other])
        if one != other and both.sum() >= config.min_support:
            result[one, other] = _similarity(rows[one, both], rows[other, both], config)
    return result


def shared_slowly(table: Float64, config: KnnConfig) -> Float64:
    """Return the number of common ratings of every two users, or of every two items: float64."""
    has = (~np.isnan(table if config.user_based else table.T)).astype(np.float64)
    return np.asarray(has @ has.T)


def predict_slowly(name: str, table: Float64, config: KnnConfig) -> Float64:
    """Return the predicted rating of every pair, not clipped: float64 (n_users, n_items)."""
    mean, b_user, b_item = baseline_slowly(name, table, config)
    baseline = mean + b_user[:, np.newaxis] + b_item
    similarity = similarities_slowly(table, config)
    shared = shared_slowly(table, config)
    above, predicted = table - baseline, baseline.copy()
    if not config.user_based:
        above, predicted = above.T, predicted.T  # a view: writes go to the copy of the baseline
    for x, y in np.ndindex(*above.shape):
        having = [v for v in range(len(above)) if not np.isnan(above[v, y]) and similarity[x, v] > 0]
        chosen = sorted(having, key=lambda v: (-similarity[x, v], -shared[x, v], v))[: config.k]
        if len(chosen) >= config.min_k:
            weights = similarity[x, chosen]
            predicted[x, y] += weights @ above[chosen, y] / weights.sum()
    return predicted if config.user_based else predicted.T


def _similarity(a: Float64, b: Float64, config: KnnConfig) -> float:
    if config.similarity == "msd":
        return float(1 / (1 + np.mean((a - b) ** 2)))
    if config.similarity == "pearson":
        a, b = a - a.mean(), b - b.mean()
    length = np.sqrt(np.sum(a * a) * np.sum(b * b))
    if length < 1e-9:
        return 0.0
    cosine = float(np.sum(a * b) / length)
    if config.similarity == "pearson_baseline":
        return cosine * (a.size - 1) / (a.size - 1 + config.shrinkage) if a.size > 1 else 0.0
    return cosine


def _means(table: Float64, mean: float) -> Float64:
    """Return the mean of each row; that of all where a row has none."""
    return np.array([np.nanmean(row) if not np.isnan(row).all() else mean for row in table])


def _baseline_config(config: KnnConfig) -> BaselineConfig:
    return BaselineConfig(
        method=config.bsl_method,
        n_epochs=config.bsl_n_epochs,
        reg_u=config.bsl_reg_u,
        reg_i=config.bsl_reg_i,
        reg=config.bsl_reg,
        learning_rate=config.bsl_learning_rate,
    )
