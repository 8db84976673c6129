"""Shows a search as it goes, on standard error: what it will take, then a bar with the best value, or plain lines."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ops.console.terminal import console
from service.training.search.search_run import SearchProgress

if TYPE_CHECKING:
    from rich.progress import Progress


_LINE_EVERY_S: Final = 5.0


class Watch:
    """Told of a search as it goes; a context that cleans the screen up.

    Args:
        measure: What the search improves.
        clock: Tells the seconds of some monotonic clock.
    """

    def __init__(self, measure: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._measure = measure
        self._bar: Progress | None = None
        self._clock = clock
        self._said_s = clock()
        self._has_begun = False
        self._has_estimated = False

    def __enter__(self) -> Self:
        """Start the bar, if there is a terminal to draw it on."""
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*shown, console=console(stderr=True), transient=True)
            self._task = self._bar.add_task("search", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, standing: SearchProgress) -> None:
        """Show how far it has come: what is going to be measured, what a trial takes, and then trial by trial."""
        if not self._has_begun:
            self._has_begun = True
            self._say(beginning(standing))
        if not self._has_estimated and standing.fold_s is not None:
            self._has_estimated = True
            self._say(estimate(standing))
        best = "" if standing.best is None else f", best {self._measure} {standing.best.mean:.4f}"
        if self._bar is not None:
            description = f"search{best}{_under_way(standing)}"
            self._bar.update(self._task, completed=standing.n_ended, total=standing.n_most, description=description)
        elif (trial := standing.ended) is not None:
            most = "" if standing.n_most is None else f" of {standing.n_most}"
            came_to = f"{trial.state}: {trial.why}" if trial.why else f"{trial.state}, {self._measure} {trial.mean:.4f}"
            self._say(f"trial {trial.number} {came_to}; {standing.n_ended}{most} done{best}")
        elif self._clock() - self._said_s >= _LINE_EVERY_S and (under_way := _under_way(standing)):
            self._say(f"search{best}{under_way}")

    def _say(self, line: str) -> None:
        self._said_s = self._clock()
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def beginning(standing: SearchProgress) -> str:
    """Say what is going to be measured, before anything has been."""
    folds = _folds(standing.folds_of_trial)
    trials = "trials until the time is up" if standing.n_most is None else f"{standing.n_most} trials"
    first = "" if standing.defaults_folds is None else f"first the settings as they are, in {folds}; then "
    return f"search: {first}{trials} of {folds} each, {standing.n_at_a_time} at a time"


def estimate(standing: SearchProgress) -> str:
    """Say what a trial will take, by what the folds have taken so far."""
    trial_s = (standing.fold_s or 0.0) * standing.folds_of_trial
    whole = ""
    if standing.n_most is not None:
        left = max(0, standing.n_most - standing.n_ended)
        whole = f", and the {left} trials about {_duration(trial_s * left / standing.n_at_a_time)}"
    took = _duration(standing.fold_s or 0.0)
    return f"search: a fold takes {took}, so that a trial takes about {_duration(trial_s)}{whole}"


def _under_way(standing: SearchProgress) -> str:
    if standing.defaults_folds is not None:
        return f", {standing.defaults_folds} of {_folds(standing.folds_of_trial)} of the settings as they are"
    return f", {_folds(standing.n_folds)} under way" if standing.n_folds else ""


def _folds(n: int) -> str:
    return f"{n} fold" if n == 1 else f"{n} folds"


def _duration(seconds: float) -> str:
    """Return a time in words that one would plan with."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
