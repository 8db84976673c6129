import pytest

from service.training.search.pruning import MIN_TRIALS, is_hopeless

# For every trial fold 0 is easy and fold 1 is hard.
COMPLETE = [(0.70 + step, 0.90 + step, 0.80 + step) for step in (0.0, 0.01, 0.02, 0.03, 0.04)]


@pytest.mark.parametrize(("folds", "expected"), [((0.719,), False), ((0.721,), True), ((0.72, 0.93), True)])
def test_a_trial_is_compared_with_the_median_on_its_own_folds(folds: tuple[float, ...], expected: bool) -> None:
    """Other trials' later folds do not count."""
    assert is_hopeless(folds, COMPLETE, lower_is_better=True) is expected


def test_larger_may_be_better() -> None:
    """As for ranking measures."""
    assert is_hopeless((0.71,), COMPLETE, lower_is_better=False)
    assert not is_hopeless((0.73,), COMPLETE, lower_is_better=False)


def test_the_first_trials_are_not_pruned() -> None:
    """A median of few is unreliable."""
    assert not is_hopeless((9.0,), COMPLETE[: MIN_TRIALS - 1], lower_is_better=True)
