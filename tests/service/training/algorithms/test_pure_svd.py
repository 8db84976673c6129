"""PureSVD projects histories on the directions of the largest singular values."""

import dataclasses

import numpy as np
import pytest

from service.models.fold_in.fold_in import fold_in
from service.training.algorithms.pure_svd import PureSvdConfig, fit, n_factors
from service.training.data import datasets
from service.training.interactions import no_progress
from tests.reference import pure_svd as reference
from tests.support.interactions import rated


@pytest.mark.parametrize(
    "config",
    [
        PureSvdConfig(n_factors=4),
        PureSvdConfig(n_factors=12, item_exponent=0.3, half_life=2.5, dislike_weight=-1.0),
        PureSvdConfig(n_factors=7, user_exponent=0.0, item_exponent=0.0, half_life=0, dislike_below=0.4),
        PureSvdConfig(n_factors=30, user_exponent=1.2, item_exponent=1.0),
        PureSvdConfig(n_factors=100),
    ],
)
def test_it_agrees_with_the_slow_reference(config: PureSvdConfig) -> None:
    """Scores are those of the exact decomposition, also with more factors than items."""
    data = datasets.read("demo:60x40x900")
    snapshot = fit(data, config, np.random.default_rng(7), no_progress)
    scores = snapshot.user_factors @ snapshot.item_factors.T
    expected = reference.scores(data, config, config.n_factors or 0)
    # From 24 factors on, the random table spans all 40 items; below, it spans most of the wanted directions.
    share = 2e-4 if (config.n_factors or 0) >= 24 else 1e-2
    np.testing.assert_allclose(scores, expected, atol=share * np.abs(expected).max())
    assert not snapshot.item_bias.any()
    assert not snapshot.user_bias.any()


def test_without_recency_all_directions_return_the_history() -> None:
    """With a factor for each item, a user scores 1 for each seen item and 0 for every other."""
    data = datasets.read("demo:60x40x900")
    config = PureSvdConfig(n_factors=40, half_life=0, dislike_below=0)
    snapshot = fit(data, config, np.random.default_rng(0), no_progress)
    scores = snapshot.user_factors @ snapshot.item_factors.T
    np.testing.assert_allclose(scores, reference.seen_table(data), atol=1e-4)


def test_rows_without_interactions_have_no_factors() -> None:
    """Of users and of items."""
    data = datasets.read("demo:40x30x450")
    known = data.take(np.flatnonzero((data.user_rows != 3) & (data.item_rows != 5)))
    snapshot = fit(known, PureSvdConfig(n_factors=8), np.random.default_rng(0), no_progress)
    assert np.flatnonzero(~snapshot.user_factors.any(axis=1)).tolist() == [3]
    assert np.flatnonzero(~snapshot.item_factors.any(axis=1)).tolist() == [5]


def test_equal_histories_leave_one_factor() -> None:
    """Users who all saw the same items span one direction, whatever n_factors is."""
    data = rated([(user, item, 1.0) for user in range(9) for item in range(5)])
    snapshot = fit(data, PureSvdConfig(n_factors=4), np.random.default_rng(0), no_progress)
    assert snapshot.n_factors == 1
    np.testing.assert_allclose(snapshot.user_factors @ snapshot.item_factors.T, 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("n_users", "n_items", "expected"),
    [(5, 8, 32), (6040, 3706, 128), (29_858, 40_981, 1008), (500_000, 90_000, 411), (30_000_000, 5_000_000, 7)],
)
def test_the_number_of_factors_grows_with_the_data(n_users: int, n_items: int, expected: int) -> None:
    """A thirtieth of the smaller side, within bounds, among them memory and time."""
    assert n_factors(PureSvdConfig(), n_users, n_items) == expected
    assert n_factors(PureSvdConfig(n_factors=5), n_users, n_items) == 5


def test_the_value_of_a_rating_counts_as_a_dislike_alone() -> None:
    """Other ratings are ones."""
    data = datasets.read("demo:40x30x450")
    config = PureSvdConfig(dislike_below=0)
    ones = dataclasses.replace(data, ratings=np.ones_like(data.ratings))
    first, other = (fit(each, config, np.random.default_rng(0), no_progress) for each in (data, ones))
    assert first.user_factors.tobytes() == other.user_factors.tobytes()
    disliking = fit(data, PureSvdConfig(), np.random.default_rng(0), no_progress)
    assert disliking.user_factors.tobytes() != first.user_factors.tobytes()


@pytest.mark.parametrize("settings", [{}, {"half_life": 0, "dislike_below": 0.5}, {"half_life_days": 3.0}])
def test_a_training_user_is_the_fold_in_of_their_history(settings: dict[str, float]) -> None:
    """To the last bit, for every user."""
    data = datasets.read("demo:60x40x900")
    snapshot = fit(data, PureSvdConfig(n_factors=9, **settings), np.random.default_rng(0), no_progress)
    for row in range(len(data.users)):
        user = fold_in(snapshot, snapshot.user_history(row))
        assert user is not None
        assert user.factors.tobytes() == snapshot.user_factors[row].tobytes()
        assert user.seen.tolist() == snapshot.seen_rows(row).tolist()
