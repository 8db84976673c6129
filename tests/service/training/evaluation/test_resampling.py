import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.evaluation import resampling
from service.training.evaluation.measures.per_user import Tally, error_tallies
from service.training.evaluation.measures.prediction_error import t_interval95
from service.training.evaluation.resampling import ResamplingUnits, bootstrap, holm, p_value, randomisation_sums
from tests.support.interactions import rated

SEED = np.random.SeedSequence(3)


def tally(values: list[float], counts: list[float] | None = None) -> Tally:
    rows = np.arange(len(values))
    return Tally(rows, np.array(values), np.array(counts or [1.0] * len(values)))


def units(n: int, seed: int = 3) -> ResamplingUnits:
    return ResamplingUnits.of(np.arange(n), n, np.random.SeedSequence(seed))


def test_the_bootstrap_of_a_mean_is_students_interval() -> None:
    """For 400 users the middle 95 % of the resampled means and the textbook's interval nearly agree."""
    values = np.random.default_rng(0).exponential(size=400)
    (low, high) = resampling.percentile_interval95(bootstrap(units(400), {"m": [tally(values.tolist())]})["m"]) or (
        0,
        0,
    )
    expected = t_interval95(values.tolist())
    width = expected[1] - expected[0]
    assert [low, high] == pytest.approx(expected, abs=0.1 * width)


def test_an_error_is_weighted_by_ratings() -> None:
    """A draw of users has all of their ratings: each resampled value is the root of some users' squared errors."""
    test = rated([(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 4)])
    predicted = np.array([2.0, 2.0, 2.0, 1.0])
    found = error_tallies(predicted, test)["rmse"]
    assert found.value() == pytest.approx(np.sqrt((1 + 0 + 1 + 9) / 4))
    drawn = bootstrap(units(2), {"rmse": [found]})["rmse"]
    possible = {np.sqrt(2 / 3), np.sqrt(11 / 4), 3.0}
    assert {round(value, 9) for value in drawn.tolist()} == {round(value, 9) for value in possible}


def test_a_measure_of_several_folds_is_their_mean() -> None:
    """In every draw; a user counts in the folds that judged it."""
    first, second = tally([1.0, 2.0, 6.0]), Tally(np.array([2]), np.array([10.0]), np.array([1.0]))
    both = bootstrap(units(3), {"both": [first, second], "first": [first]})
    is_drawn = np.isfinite(both["both"])
    assert 0.6 < is_drawn.mean() < 0.8  # the third user is in 1 - (2/3)^3 of the draws
    assert both["both"][is_drawn].tolist() == pytest.approx(((both["first"] + 10) / 2)[is_drawn].tolist())
    assert resampling.percentile_interval95(both["both"]) is not None


def test_no_user_to_draw() -> None:
    """A measure without users has no interval."""
    empty = Tally(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0))
    assert empty.value() is None
    assert resampling.percentile_interval95(bootstrap(units(3), {"m": [empty]})["m"]) is None
    assert (
        resampling.percentile_interval95(
            bootstrap(ResamplingUnits.of(np.empty(0, dtype=np.int64), 3, SEED), {"m": [empty]})["m"]
        )
        is None
    )


def test_draws_follow_the_seed_and_draw_as_many_users_as_there_are() -> None:
    """Counts of a draw add up to the number of users; the same seed draws the same."""
    first, same, other = (np.concatenate(list(units(7, seed).draws())) for seed in (1, 1, 2))
    assert first.shape == (resampling.N_RESAMPLES, 7)
    assert set(first.sum(axis=1).tolist()) == {7.0}
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    signs = np.concatenate(list(units(7, 1).swaps()))
    assert signs.shape == (resampling.N_SWAPS, 7)
    assert set(np.unique(signs).tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.02


def test_very_many_users_are_drawn_in_clusters() -> None:
    """Of equal size, every user in one; the interval is about the same."""
    values = np.random.default_rng(0).exponential(size=3000).tolist()
    whole = resampling.percentile_interval95(bootstrap(units(3000), {"m": [tally(values)]})["m"]) or [0, 0]
    clusters = ResamplingUnits.of(np.arange(3000), 3000, SEED, max_units=500)
    assert clusters.n == 500
    assert np.bincount(clusters.of_user).tolist() == [6] * 500
    in_clusters = resampling.percentile_interval95(bootstrap(clusters, {"m": [tally(values)]})["m"])
    assert in_clusters == pytest.approx(whole, abs=0.15 * (whole[1] - whole[0]))


@pytest.mark.parametrize("difference", [0.0, 0.3, 1.0])
def test_the_randomisation_test_is_its_definition(difference: float) -> None:
    """For 8 users all 256 swaps can be written down; the sampled p is close to theirs."""
    rng = np.random.default_rng(5)
    a = rng.normal(size=8)
    b = a - difference - 0.5 * rng.normal(size=8)
    totals, swaps = randomisation_sums(units(8), [[tally(a.tolist())], [tally(b.tolist())]])
    p = p_value(float(totals[0] - totals[1]), swaps[:, 0] - swaps[:, 1])
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    means = signs @ (a - b) / 8
    assert totals[0] - totals[1] == pytest.approx(float(np.mean(a - b)))
    assert p == pytest.approx(float(np.mean(np.abs(means) >= abs(np.mean(a - b)) - 1e-12)), abs=0.02)


def test_equal_models_do_not_differ() -> None:
    """A p value is never 0."""
    same = tally([0.1, 0.7, 0.2])
    totals, swaps = randomisation_sums(units(3), [[same], [same]])
    assert p_value(float(totals[0] - totals[1]), swaps[:, 0] - swaps[:, 1]) == 1.0
    assert p_value(100.0, np.zeros(99)) == 0.01


@given(p_values=st.lists(st.floats(0, 1), max_size=6))
def test_holm(p_values: list[float]) -> None:
    """Step by step: the least p times m, the next times m - 1, never less than the one before, at most 1."""
    expected: dict[int, float] = {}
    least = 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, p_values[index] * (len(p_values) - step)))
        expected[index] = least
    assert holm(p_values) == [expected[index] for index in range(len(p_values))]


def test_holm_by_hand() -> None:
    """Of three tests only the clearest stays below 5 %."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
