"""Shows the progress of a search on standard error: a bar with the best value on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from ops.console.progress import ProgressBar

if TYPE_CHECKING:
    from service.training.search.search_run import SearchProgress

_LINE_EVERY_S: Final = 5.0


class SearchWatch:
    """A callback for the progress of a search, and a context that removes the bar.

    Args:
        measure: What the search improves.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, measure: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._measure = measure
        self._bar = ProgressBar(counts=True)
        self._clock = clock
        self._printed_s = clock()
        self._has_begun = False
        self._has_estimated = False

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        self._bar.__exit__(*exception)

    def __call__(self, progress: "SearchProgress") -> None:
        """Show the plan once, an estimate after the first fold, and then each trial."""
        if not self._has_begun:
            self._has_begun = True
            self._print(plan_line(progress))
        if not self._has_estimated and progress.fold_s is not None:
            self._has_estimated = True
            self._print(estimate_line(progress))
        best = "" if progress.best is None else f", best {self._measure} {progress.best.mean:.4f}"
        if self._bar.is_drawn:
            self._bar.show(f"search{best}{_under_way(progress)}", progress.n_ended, progress.n_trials)
        elif (trial := progress.ended) is not None:
            of_all = "" if progress.n_trials is None else f" of {progress.n_trials}"
            result = (
                f"{trial.state}: {trial.why.removesuffix('.')}"
                if trial.why
                else f"{trial.state}, {self._measure} {trial.mean:.4f}"
            )
            self._print(f"trial {trial.number} {result}; {progress.n_ended}{of_all} done{best}")
        elif self._clock() - self._printed_s >= _LINE_EVERY_S and (under_way := _under_way(progress)):
            self._print(f"search{best}{under_way}")

    def _print(self, line: str) -> None:
        self._printed_s = self._clock()
        self._bar.print(line)


def plan_line(progress: "SearchProgress") -> str:
    """Return what is going to be measured."""
    folds = _folds(progress.n_folds)
    trials = "trials until the time is up" if progress.n_trials is None else f"{progress.n_trials} trials"
    first = "" if progress.n_defaults_folds is None else f"first the defaults, in {folds}; then "
    return f"search: {first}{trials} of {folds} each, {progress.n_workers} at a time"


def estimate_line(progress: "SearchProgress") -> str:
    """Return how long a trial and all of them will take, by the mean time of a fold so far."""
    trial_s = (progress.fold_s or 0.0) * progress.n_folds
    whole = ""
    if progress.n_trials is not None:
        left = max(0, progress.n_trials - progress.n_ended)
        whole = f", and the {left} trials about {_duration(trial_s * left / progress.n_workers)}"
    took = _duration(progress.fold_s or 0.0)
    return f"search: a fold takes {took}, so that a trial takes about {_duration(trial_s)}{whole}"


def _under_way(progress: "SearchProgress") -> str:
    if progress.n_defaults_folds is not None:
        return f", {progress.n_defaults_folds} of {_folds(progress.n_folds)} of the defaults"
    return f", {_folds(progress.n_folds_under_way)} under way" if progress.n_folds_under_way else ""


def _folds(n: int) -> str:
    return f"{n} fold" if n == 1 else f"{n} folds"


def _duration(seconds: float) -> str:
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
