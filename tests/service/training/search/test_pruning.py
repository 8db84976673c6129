import pytest

from service.training.search.pruning import MIN_TRIALS, should_prune

# For every trial fold 0 is easy and fold 1 is hard.
COMPLETE = [(0.70 + step, 0.90 + step, 0.80 + step) for step in (0.0, 0.01, 0.02, 0.03, 0.04)]


@pytest.mark.parametrize(("folds", "expected"), [((0.719,), False), ((0.721,), True), ((0.72, 0.93), True)])
def test_a_trial_is_compared_with_the_median_on_its_own_folds(folds: tuple[float, ...], expected: bool) -> None:
    """Other trials' later folds do not count."""
    assert should_prune(folds, COMPLETE, lower_is_better=True) is expected


def test_larger_may_be_better() -> None:
    """As for ranking measures."""
    assert should_prune((0.71,), COMPLETE, lower_is_better=False)
    assert not should_prune((0.73,), COMPLETE, lower_is_better=False)


def test_the_first_trials_are_not_pruned() -> None:
    """A median of few is unreliable."""
    assert not should_prune((9.0,), COMPLETE[: MIN_TRIALS - 1], lower_is_better=True)
