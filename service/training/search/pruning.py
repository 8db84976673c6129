"""The pruning rule: when a trial ends between two folds (pure).

Invariant: trials are compared on the same folds, so that a hard fold counts against none of them. Nothing is pruned
before `MIN_TRIALS` trials are complete.

Source: the median rule of Golovin et al., "Google Vizier: a service for black-box optimization", KDD 2017, with folds
for steps.
"""

from collections.abc import Collection, Sequence
from statistics import fmean, median
from typing import Final

MIN_TRIALS: Final = 5


def should_prune(folds: Sequence[float], complete: Collection[Sequence[float]], *, lower_is_better: bool) -> bool:
    """Return whether a trial is worse so far than the median of the complete trials on the same folds.

    Args:
        folds: The trial's measure on its first folds, at least one.
        complete: The measures of every complete trial, one per fold.
        lower_is_better: Whether the measure is an error.
    """
    if len(complete) < MIN_TRIALS:
        return False
    middle = median(fmean(others[: len(folds)]) for others in complete)
    mean = fmean(folds)
    return mean > middle if lower_is_better else mean < middle
