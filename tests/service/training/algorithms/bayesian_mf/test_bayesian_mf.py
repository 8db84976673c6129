"""Bayesian matrix factorisation draws what the papers say, and its mean predicts better than any one sample."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.training.algorithms.bayesian_mf.bayesian_mf import BayesianMfConfig, fit
from service.training.algorithms.bayesian_mf.draws import RowPrior, SideRatings, draw_prior, draw_rows
from service.training.algorithms.bayesian_mf.link import ImplicitLink, solve_by_conjugate_gradients
from service.training.algorithms.kernels.factors.averaging import MeanProduct, truncated
from service.training.algorithms.predictions import predict
from service.training.data import datasets
from service.training.evaluation.measures.prediction_error import rmse
from service.training.interactions import no_progress
from tests.reference.bayesian_mf import draw_rows_slowly, link_slowly

N_USERS, N_ITEMS, WIDTH = 14, 11, 4


@pytest.fixture
def stored() -> NDArray[np.bool_]:
    """Rated pairs; user 3 rated nothing."""
    found = np.random.default_rng(0).random((N_USERS, N_ITEMS)) < 0.5
    found[3] = False
    return found


def side(stored: NDArray[np.bool_], ratings: NDArray[np.float64]) -> SideRatings:
    rows, columns = np.nonzero(stored)
    matrix = csr_array((ratings[rows, columns].astype(np.float32), (rows, columns)), shape=stored.shape)
    return SideRatings(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


def test_drawn_rows_agree_with_the_reference(stored: NDArray[np.bool_]) -> None:
    """Given the same noise, to rounding; a row without ratings from its prior alone."""
    rng = np.random.default_rng(1)
    ratings = rng.normal(size=stored.shape)
    users = side(stored, ratings)
    other = rng.normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    root = rng.normal(size=(WIDTH, WIDTH))
    precision = root @ root.T + np.eye(WIDTH)
    prior_mean = rng.normal(size=(N_USERS, WIDTH))
    noise = rng.standard_normal((N_USERS, WIDTH)).astype(np.float32)
    features = other.copy()
    features[:, -1] = 1
    table = np.empty((N_USERS, WIDTH), np.float32)
    prior = (prior_mean @ precision).astype(np.float32)
    for start, stop in ((0, 5), (5, N_USERS)):
        draw_rows(start, stop, users, features, other[:, -1].copy(), prior, precision, 1.7, noise, table)
    slowly = draw_rows_slowly(stored, ratings, other.astype(float), prior_mean, precision, 1.7, noise.astype(float))
    np.testing.assert_allclose(table, slowly, atol=2e-5)


def test_the_implicit_system_is_solved(stored: NDArray[np.bool_]) -> None:
    """With as many steps as unknowns, conjugate gradients reach the solution of the dense system."""
    users, items = side(stored, stored.astype(float)), side(stored.T, stored.T.astype(float))
    link = ImplicitLink(users, items, WIDTH)
    right = np.random.default_rng(2).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    found = np.zeros_like(right)
    solve_by_conjugate_gradients(lambda x: link.apply(x, 0.7), right, found, N_ITEMS + 3)
    np.testing.assert_allclose(found, link_slowly(stored, right.astype(float), 0.7), rtol=1e-3, atol=1e-4)


def test_priors_are_drawn_around_the_statistics_of_the_rows() -> None:
    """Over many draws, mean and covariance are those of a table of many rows."""
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(WIDTH, WIDTH))
    table = rng.normal(size=(4000, WIDTH)) @ mixing + np.array([1.0, -2.0, 0.5, 0.0])
    drawn = [draw_prior(table, rng) for _ in range(60)]
    assert all(isinstance(prior, RowPrior) for prior in drawn)
    np.testing.assert_allclose(np.mean([prior.mean for prior in drawn], axis=0), table.mean(axis=0), atol=0.03)
    covariance = np.mean([np.linalg.inv(prior.precision) for prior in drawn], axis=0)
    np.testing.assert_allclose(covariance, np.cov(table.T), rtol=0.05, atol=0.05)
    scatter = np.std([prior.mean for prior in drawn], axis=0)
    np.testing.assert_allclose(scatter, np.sqrt(np.diag(np.cov(table.T)) / 4000), rtol=0.4)


def test_the_mean_of_products_is_a_product() -> None:
    """Exact at low rank, else the best approximation."""
    rng = np.random.default_rng(4)
    basis = rng.normal(size=(N_ITEMS, 2))
    averaged, dense = MeanProduct(N_USERS, N_ITEMS, 2), np.zeros((N_USERS, N_ITEMS))
    for _ in range(7):
        users, items = rng.normal(size=(N_USERS, 2)), basis @ rng.normal(size=(2, 2))
        averaged.add(users, items)
        dense += users @ items.T / 7
    users, items = averaged.factors()
    np.testing.assert_allclose(users @ items.T, dense, atol=1e-5)
    users, items = truncated(rng.normal(size=(N_USERS, 9)), rng.normal(size=(N_ITEMS, 9)), 9)
    left, sizes, right = np.linalg.svd(users @ items.T)
    low = truncated(users, items, 3)
    np.testing.assert_allclose(low[0] @ low[1].T, (left[:, :3] * sizes[:3]) @ right[:3], atol=1e-9)


def test_more_factors_than_users_are_zeros() -> None:
    """Tables have the configured width."""
    averaged = MeanProduct(2, 3, 5)
    averaged.add(np.ones((2, 5)), np.ones((3, 5)))
    users, items = averaged.factors()
    assert users.shape == (2, 5)
    assert items.shape == (3, 5)
    np.testing.assert_allclose(users @ items.T, np.full((2, 3), 5.0), rtol=1e-6)


def test_the_mean_predicts_better_than_one_sample() -> None:
    """On held-out ratings, and one sample is better than the mean rating."""
    data = datasets.read("demo:300x120x9000")
    held_out = np.arange(len(data)) % 5 == 0
    known, hidden = data.take(np.flatnonzero(~held_out)), data.take(np.flatnonzero(held_out))

    def error(n_samples: int) -> float:
        config = BayesianMfConfig(n_factors=4, n_burn_in=20, n_samples=n_samples)
        model = fit(known, config, np.random.default_rng(5), no_progress)
        return rmse(predict(model, hidden.user_rows, hidden.item_rows), hidden.ratings)

    of_mean = rmse(np.full(len(hidden), known.ratings.mean()), hidden.ratings)
    assert error(60) < error(1) - 0.02 < of_mean - 0.02


def test_factors_are_centred() -> None:
    """An unknown user then gets the scores of an average user."""
    data = datasets.read("demo:100x60x2500")
    model = fit(data, BayesianMfConfig(n_factors=3, n_samples=20, n_burn_in=5), np.random.default_rng(6), no_progress)
    np.testing.assert_allclose(model.user_factors.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(model.item_factors.mean(axis=0), 0, atol=1e-5)
    assert model.item_bias.mean() == pytest.approx(0, abs=1e-5)
    assert model.global_mean == pytest.approx(float(data.ratings.mean()), rel=1e-6)
