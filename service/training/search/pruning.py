"""When a trial is given up between two folds (pure).

Invariant: trials are compared on the same folds, so that a fold that is hard for all is held against none. What is
measured first is never pruned, nor is anything before `LEAST_TRIALS` have been measured on every fold.
"""

from collections.abc import Collection, Sequence
from statistics import fmean, median
from typing import Final

LEAST_TRIALS: Final = 5


def is_hopeless(folds: Sequence[float], complete: Collection[Sequence[float]], *, lower_is_better: bool) -> bool:
    """Return whether a trial does worse so far than the median of the complete ones did on the same folds.

    This is the median rule of Golovin et al., "Google Vizier: a service for black-box optimization" (KDD 2017), with
    folds for steps.

    Args:
        folds: The trial's measure on its first folds, at least one.
        complete: The measures of every trial that finished, one per fold.
        lower_is_better: Whether the measure is an error.
    """
    if len(complete) < LEAST_TRIALS:
        return False
    middle = median(fmean(others[: len(folds)]) for others in complete)
    reached = fmean(folds)
    return reached > middle if lower_is_better else reached < middle
