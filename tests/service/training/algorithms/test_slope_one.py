import numpy as np
import pytest

from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.slope_one import SlopeOneConfig, fit, predict
from service.training.data import datasets
from service.training.interactions import Float32, Interactions, no_progress
from tests.reference.slope_one import deviations_slowly, predict_slowly
from tests.support.models.dense_tables import dense, every_pair, ratings

ALL = SlopeOneConfig(n_neighbours=1000)


def fitted(data: Interactions, config: SlopeOneConfig = ALL) -> ModelSnapshot:
    return fit(data, config, np.random.default_rng(0), no_progress)


def scores(snapshot: ModelSnapshot) -> Float32:
    rows = np.arange(len(snapshot.items))
    return np.stack([scoring.exact_scores(snapshot, user, rows) for user in range(len(snapshot.users))])


@pytest.mark.parametrize("whole", [True, False])
def test_predictions_agree_with_the_slow_reference(whole: bool) -> None:
    """Of all pairs, known or not, also of users and items without ratings."""
    data = ratings(whole=whole)
    table = dense(data)
    expected = np.clip(predict_slowly(table, deviations_slowly(table)[0]), data.rating_min, data.rating_max)
    np.testing.assert_allclose(predict(fitted(data), *every_pair(data)), expected.ravel(), atol=1e-5)


def test_scores_without_limits_are_the_predictions() -> None:
    """They differ only by n_neighbours, if all items of a user share a user with the item."""
    data = ratings()
    table = dense(data)
    deviations, _ = deviations_slowly(table)
    is_rated = ~np.isnan(table)
    n_neighbours = is_rated.astype(int) @ (~np.isnan(deviations)).T.astype(int)
    is_complete = ~is_rated & (n_neighbours == is_rated.sum(axis=1, keepdims=True)) & (n_neighbours > 0)
    assert is_complete.sum() > 100
    served = scores(fitted(data))
    np.testing.assert_allclose(served[is_complete], predict_slowly(table, deviations)[is_complete], atol=1e-5)


def test_the_served_model_keeps_the_most_common_pairs() -> None:
    """By the number of common users of each item; ties keep the smaller rows."""
    data = ratings()
    table = dense(data)
    deviations, shared = deviations_slowly(table)
    dropped = np.argsort(-shared, axis=1, kind="stable")[:, 4:]
    np.put_along_axis(deviations, dropped, np.nan, axis=1)
    snapshot = fitted(data, SlopeOneConfig(n_neighbours=4))
    assert snapshot.neighbourhood is not None
    by_item = snapshot.neighbourhood.weights.T.tocsr()
    kept = np.zeros(shared.shape, dtype=bool)
    kept[np.repeat(np.arange(len(kept)), np.diff(by_item.indptr)), by_item.indices] = True
    assert (kept == ~np.isnan(deviations)).all()


def test_biases_replace_the_dropped_deviations() -> None:
    """A score is the user's mean plus d(i), less the mean of d(j), plus the mean rest of the kept deviations."""
    data = ratings()
    table = dense(data)
    deviations, shared = deviations_slowly(table)
    np.put_along_axis(deviations, np.argsort(-shared, axis=1, kind="stable")[:, 4:], np.nan, axis=1)
    means = np.array([np.nanmean(row) if not np.isnan(row).all() else np.nanmean(table) for row in table])
    above = table - means[:, np.newaxis]
    offset = np.array([0.0 if np.isnan(column).all() else np.nanmean(column) for column in above.T])
    expected = np.empty(table.shape)
    for u, i in np.ndindex(*table.shape):
        rated = ~np.isnan(table[u])
        rests = (deviations[i] - offset[i] + offset)[rated & ~np.isnan(deviations[i])]
        expected[u, i] = means[u] + offset[i] + (rests.mean() if rests.size else 0.0)
        expected[u, i] -= offset[rated].mean() if rated.any() else 0.0
    np.testing.assert_allclose(scores(fitted(data, SlopeOneConfig(n_neighbours=4))), expected, atol=1e-5)


def test_a_deviation_of_zero_is_kept() -> None:
    """Two items with equal ratings are neighbours with weight 0."""
    data = datasets.read("demo:30x20x300")
    data.ratings[:] = 3
    snapshot = fitted(data)
    assert snapshot.neighbourhood is not None
    assert snapshot.neighbourhood.weights.nnz > 100
    assert not snapshot.neighbourhood.weights.data.any()
