"""The contract of algorithms that predict ratings; algorithm_cases.py enrols them."""

import numpy as np
import pytest

from service.models.ranking import scoring
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.data import datasets
from service.training.evaluation import splits
from service.training.evaluation.measures.prediction_error import rmse
from service.training.interactions import Interactions, no_progress
from tests.contracts.algorithm_cases import (
    RATING,
    SMALL,
    Case,
    checkerboard,
    fitted,
    fitted_on_checkerboard,
    interactions,
    of,
    on_another_scale,
    predicted,
)


@of(case for case in RATING if case.personal)
def test_a_checkerboard_is_learnt(case: Case) -> None:
    """The hidden squares are predicted, and the unseen items of every user are in order."""
    known, hidden = checkerboard()
    snapshot = fitted_on_checkerboard(case)
    assert rmse(predicted(case, snapshot, hidden.user_rows, hidden.item_rows), hidden.ratings) < 0.25
    for user_row in range(len(known.users)):
        unseen = hidden.item_rows[hidden.user_rows == user_row]
        scores = scoring.exact_scores(snapshot, user_row, unseen.astype(np.int64))
        is_loved = unseen % 2 == user_row % 2
        assert scores[is_loved].min() > scores[~is_loved].max() + 2


@of(RATING)
def test_unknown_users_and_items_get_the_known_baseline(case: Case) -> None:
    """A user without ratings gets the item's baseline if there is one; both unknown get the mean."""
    users = np.array([0, 0, 0, 1, 1, 1, 2])
    items = np.array([0, 1, 2, 0, 1, 2, 3])
    data = interactions(users, items, np.array([5.0, 3.0, 1.0, 5.0, 3.0, 1.0, 3.0]))
    # Only the last rating, left out here, names user 2 and item 3.
    snapshot = fitted(case, data.take(np.arange(6)))
    pairs = np.array([[2, 0], [2, 1], [2, 2], [2, 3], [0, 3]])
    liked, fair, disliked, both_unknown, unknown_item = predicted(case, snapshot, *pairs.T)
    if case.unknown == "baseline":
        assert liked > fair > disliked
    else:
        assert (liked, fair, disliked) == pytest.approx((3.0, 3.0, 3.0), abs=0.01)
    assert both_unknown == pytest.approx(3.0, abs=0.01)
    assert unknown_item == pytest.approx(3.0, abs=0.5)
    assert not snapshot.user_factors[2].any()
    assert not snapshot.item_factors[3].any()


def error_on(case: Case, data: Interactions, factor: float, shift: float = 0.0) -> float:
    """Return the error on a hold-out of scaled data, in the original unit."""
    scaled = on_another_scale(data, factor, shift)
    learnt, judged = splits.hold_out(len(data), 0.2, np.random.default_rng(0)) or pytest.fail("too little data")
    quick = {"bayesian_mf": ["n_samples=20"], "two_tower_rating": ["n_epochs=4"]}
    candidate = ConfiguredAlgorithm.parse(case.name, quick.get(case.name, []))
    snapshot = candidate.algorithm.fit(scaled.take(learnt), candidate.config, np.random.default_rng(0), no_progress)
    hidden = scaled.take(judged)
    assert (snapshot.rating_min, snapshot.rating_max) == (scaled.rating_min, scaled.rating_max)
    scores = scoring.exact_scores(snapshot, 0, np.arange(len(data.items)))
    assert np.isfinite(scores).all()
    return rmse(predicted(case, snapshot, hidden.user_rows, hidden.item_rows), hidden.ratings) / factor


@of(RATING)
def test_errors_scale_with_the_ratings(case: Case) -> None:
    """From 0 to 1, to 100, negative, huge or tiny."""
    data = datasets.read("demo:150x80x3000")
    error = error_on(case, data, 1)
    for factor in (20, 0.2, 1e30, 1e-20):
        assert error_on(case, data, factor) == pytest.approx(error, rel=2e-3), factor
    # A shifted scale changes results slightly, for algorithms that compare ratings with 0.
    for factor, shift in ((4, -10.5), (1, 90)):
        assert error_on(case, data, factor, shift) == pytest.approx(error, rel=0.1), (factor, shift)


@of(RATING)
@pytest.mark.parametrize("rating", [1.0, 0.0, -3.0, 1e30])
def test_equal_ratings_are_predicted(case: Case, rating: float) -> None:
    """A constant is learnt, whatever it is."""
    data = datasets.read(SMALL)
    scaled = on_another_scale(data, 0, rating)
    snapshot = fitted(case, scaled)
    predictions = predicted(case, snapshot, data.user_rows[:50], data.item_rows[50:100])
    assert predictions == pytest.approx(np.full(50, rating), rel=0.05, abs=0.05)


@of(RATING)
def test_predictions_stay_on_the_scale(case: Case) -> None:
    """They are clipped to the rating scale."""
    _known, hidden = checkerboard()
    predictions = predicted(case, fitted_on_checkerboard(case), hidden.user_rows, hidden.item_rows)
    assert predictions.min() >= 1.0
    assert predictions.max() <= 5.0
