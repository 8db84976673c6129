from dataclasses import replace

import numpy as np
import pytest

from service.errors import UsageError
from service.models.snapshot import ModelSnapshot
from service.training.algorithms.nmf import NmfConfig, fit
from service.training.algorithms.predictions import predict
from service.training.data import datasets
from service.training.evaluation.measures.prediction_error import rmse
from service.training.interactions import Float32, Int32, no_progress
from tests.reference.nmf import fit_slowly


def scores_of(snapshot: ModelSnapshot, users: Int32, items: Int32) -> Float32:
    """Return unclipped predictions."""
    products = np.einsum("ij,ij->i", snapshot.user_factors[users], snapshot.item_factors[items])
    scores: Float32 = products + snapshot.user_bias[users] + snapshot.item_bias[items] + snapshot.global_mean
    return scores


@pytest.mark.parametrize(
    "config",
    [
        NmfConfig(n_epochs=10, n_starts=1),
        NmfConfig(n_factors=8, n_epochs=5, reg_pu=0.3, reg_qi=0.0, init_low=0.2, init_high=0.4, n_starts=1),
        NmfConfig(n_factors=3, n_epochs=20, biased=True, n_starts=1),
        NmfConfig(n_factors=17, n_epochs=5, biased=True, lr_bu=0.02, lr_bi=0.01, reg_bu=0.5, reg_bi=0.3, n_starts=1),
    ],
)
def test_the_kernels_agree_with_the_slow_reference(config: NmfConfig) -> None:
    """Float32 row by row and float64 over whole tables give the same tables."""
    data = datasets.read("demo:30x20x300")
    snapshot = fit(data, config, np.random.default_rng(7), no_progress)
    mean, tables = fit_slowly(data, config, np.random.default_rng(7))
    assert snapshot.global_mean == pytest.approx(mean, rel=1e-6)
    np.testing.assert_allclose(snapshot.user_factors, tables.user_factors, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(snapshot.item_factors, tables.item_factors, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(snapshot.user_bias, tables.user_bias, atol=2e-5)
    np.testing.assert_allclose(snapshot.item_bias, tables.item_bias, atol=2e-5)


@pytest.mark.parametrize("biased", [False, True])
def test_the_best_start_is_kept(*, biased: bool) -> None:
    """The start with the least training error; the first start is that of a single one."""
    data = datasets.read("demo:60x40x900")
    errors = {}
    for n_starts in (1, 5):
        snapshots = [
            fit(data, NmfConfig(biased=biased, n_starts=n_starts), np.random.default_rng(seed), no_progress)
            for seed in range(3)
        ]
        errors[n_starts] = [
            rmse(scores_of(snapshot, data.user_rows, data.item_rows), data.ratings) for snapshot in snapshots
        ]
    assert all(best <= first for best, first in zip(errors[5], errors[1], strict=True))
    assert errors[5] != errors[1]


def test_the_progress_counts_the_epochs_of_all_starts() -> None:
    """From none to all."""
    seen: list[tuple[str, int, int]] = []
    data = datasets.read("demo:5x5x10")
    fit(data, NmfConfig(n_epochs=2, n_starts=2), np.random.default_rng(0), lambda *step: seen.append(step))
    assert seen == [("fit", done, 4) for done in (0, 1, 2, 2, 3, 4)]


@pytest.mark.parametrize("biased", [False, True])
def test_no_factor_is_below_zero(*, biased: bool) -> None:
    """With zeros among the ratings; a user with ratings of 0 alone is predicted 0."""
    data = datasets.read("demo:60x40x900")
    ratings = np.where(data.user_rows == 3, 0, data.ratings - data.rating_min).astype(np.float32)
    data = replace(data, ratings=ratings, rating_min=0.0)
    snapshot = fit(data, NmfConfig(biased=biased, reg_pu=0.0, reg_qi=0.0), np.random.default_rng(0), no_progress)
    assert snapshot.user_factors.min() >= 0
    assert snapshot.item_factors.min() >= 0
    if not biased:
        assert predict(snapshot, np.full(3, 3, np.int32), np.arange(3, dtype=np.int32)).tolist() == [0, 0, 0]


def test_a_scale_below_zero_is_moved() -> None:
    """Factors stay at least 0, and predictions are on the original scale."""
    data = datasets.read("demo:60x40x900")
    shifted = replace(data, ratings=data.ratings - 5, rating_min=data.rating_min - 5, rating_max=data.rating_max - 5)
    snapshot = fit(shifted, NmfConfig(), np.random.default_rng(0), no_progress)
    assert snapshot.user_factors.min() >= 0
    assert snapshot.global_mean == -4.5
    predictions = predict(snapshot, data.user_rows, data.item_rows)
    assert np.corrcoef(predictions, shifted.ratings)[0, 1] > 0.8
    assert abs(predictions.mean() - shifted.ratings.mean()) < 0.1


def test_initial_factors_must_be_above_zero() -> None:
    """A zero stays zero."""
    with pytest.raises(UsageError, match="init_high must be above init_low, which is 0, not 0"):
        NmfConfig(init_high=0.0)


def test_unknown_pairs_get_the_mean_without_biases() -> None:
    """An unrated item is predicted the mean rating."""
    data = datasets.read("demo:30x20x300")
    known = data.take(np.flatnonzero(data.item_rows != 0))
    snapshot = fit(known, NmfConfig(), np.random.default_rng(0), no_progress)
    predicted = predict(snapshot, np.array([3], dtype=np.int32), np.array([0], dtype=np.int32))
    assert predicted == pytest.approx(known.ratings.mean(), rel=1e-6)


def test_the_defaults_are_those_of_scikit_surprise() -> None:
    """Names and values; n_starts is 1 there."""
    assert NmfConfig() == NmfConfig(
        n_factors=15, n_epochs=50, biased=False, reg_pu=0.06, reg_qi=0.06, reg_bu=0.02, reg_bi=0.02, lr_bu=0.005,
        lr_bi=0.005, init_low=0.0, init_high=1.0, n_starts=3,
    )  # fmt: skip
