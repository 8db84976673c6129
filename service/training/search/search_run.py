"""One search: from a question to every trial that was made for it, and the best of them.

Invariant: every trial is measured on the same splits, with the same generator for the fit on each; so differences
between trials are due to settings. With one worker the trials are a function of data, question and method, apart from
seconds. A trial that fails is kept with its reason and ends nothing.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.training.evaluation import measurement, split_dataset
from service.training.interactions import Interactions
from service.training.search import search_result, shared_dataset
from service.training.search.pruning import is_hopeless
from service.training.search.search_request import DEFAULT_TRIALS, SearchOptions, SearchSpec
from service.training.search.search_space import assignments
from service.training.search.study import Study, Trial, opened
from service.training.search.workers import Failed, Outcome, Task, Workers

# The settings as they are without the search have a trial too, which is in no study of Optuna's.
_DEFAULTS: Final = -1


@dataclass(frozen=True)
class SearchProgress:
    """How far a search has come.

    Attributes:
        n_ended: Trials that are complete, pruned or failed.
        n_most: How many there will be; None if nobody knows.
        n_folds: Folds measured in the trials under way.
        best: The best complete trial; None before the first.
        ended: The trial that has just ended; None if none has.
        folds_of_trial: How many folds a whole trial has.
        fold_s: Mean seconds of a fold so far, of all that were measured in this run; None before the first.
        defaults_folds: Folds measured of the settings that the search begins with, which are measured first; None once
            they are known.
        n_at_a_time: Trials that are measured at the same time.
    """

    n_ended: int
    n_most: int | None
    n_folds: int
    best: Trial | None
    ended: Trial | None
    folds_of_trial: int = 1
    fold_s: float | None = None
    defaults_folds: int | None = None
    n_at_a_time: int = 1


def search(
    data: Interactions,
    question: SearchSpec,
    effort: SearchOptions,
    *,
    watch: Callable[[SearchProgress], None] = lambda _: None,
) -> dict[str, Any]:
    """Search, or go on with a search.

    Ctrl-C ends it with what is there; the trials under way are kept in the study, if there is one.

    Args:
        data: The ratings.
        question: What is searched for.
        effort: how.
        watch: Told how far it has come, after each fold.

    Returns:
        Everything about it as plain JSON values: `data`, `algorithm`, `protocol`, `space`, `fixed`, `defaults`, `best`,
        `importance`, `ranked` (numbers of the complete trials, the best first), `trials`, `seconds`, `is_interrupted`.

    Raises:
        UsageError: The measure does not suit the algorithm, the data cannot be cut so, or the study is refused.
        RunError: No trial came to an end with a value.
        KeyboardInterrupt: Ctrl-C came before one did.
    """
    measurement.parse_measures(question.candidate(), [question.measure])
    started_s = time.monotonic()
    splits = list(split_dataset.split_positions(data, question.protocol))
    keeping = opened(
        effort.study,
        question.as_json(data),
        question.space,
        effort.method,
        seed=question.protocol.seed,
        lower_is_better=question.lower_is_better,
        parallel=effort.n_workers > 1,
    )
    with keeping as study, tempfile.TemporaryDirectory(prefix="recollect-search-") as folder:
        shared_dataset.write(Path(folder), data, splits)
        with Workers(Path(folder), effort.n_workers, effort.n_threads) as workers:
            running = _Running(question, effort, study, workers, question.protocol.seeds().fits, watch)
            is_interrupted = not running.to_the_end(started_s)
        if is_interrupted and all(trial.state != "complete" for trial in study.trials()):
            raise KeyboardInterrupt
        found = search_result.as_json(data, question, effort, study)
    found["protocol"]["held_out"] = [int(judged.size) for _, judged in splits]
    return found | {"seconds": time.monotonic() - started_s, "is_interrupted": is_interrupted}


class _Running:
    """Keeps the workers busy: takes the outcome of each task to the study, and the next task from it."""

    def __init__(
        self,
        question: SearchSpec,
        effort: SearchOptions,
        study: Study,
        workers: Workers,
        seeds: Sequence[np.random.SeedSequence],
        watch: Callable[[SearchProgress], None],
    ) -> None:
        self._question, self._effort, self._study, self._workers = question, effort, study, workers
        self._seeds, self._watch = seeds, watch
        known = study.trials()
        self._ended = [trial for trial in known if trial.state != "running"]
        # What a run before this one left behind comes first, and before that what all are compared with.
        self._left = [trial for trial in known if trial.state == "running"]
        if study.defaults is None:
            self._left.insert(0, Trial(_DEFAULTS, {}))
        self._under_way: dict[int, Trial] = {}
        self._fold_s: list[float] = []

    def to_the_end(self, started_s: float) -> bool:
        """Work until no more trials are wanted; return False if Ctrl-C came before."""
        try:
            while True:
                for worker in range(self._workers.n_workers):
                    if worker not in self._under_way and (trial := self._next(started_s)) is not None:
                        self._under_way[worker] = trial
                        self._workers.begin(worker, self._task(trial))
                self._tell(None)
                if not self._under_way:
                    return True
                for worker, outcome in self._workers.outcomes():
                    trial = self._after(self._under_way.pop(worker), outcome)
                    if trial.state == "running":
                        self._under_way[worker] = trial
                        self._workers.begin(worker, self._task(trial))
                    self._tell(trial if trial.state != "running" and trial.number != _DEFAULTS else None)
        except KeyboardInterrupt:
            return False

    def _next(self, started_s: float) -> Trial | None:
        """Return a trial to measure a fold of; trials whose end is known already are ended here."""
        while True:
            if self._left:
                trial = self._judged(self._left.pop(0))
            elif not self._may_begin(started_s) or (begun := self._study.next()) is None:
                return None
            else:
                trial = self._copied(begun)
            if trial.state == "running":
                return trial
            self._tell(trial)

    def _may_begin(self, started_s: float) -> bool:
        effort = self._effort
        if effort.timeout_s is not None and time.monotonic() - started_s >= effort.timeout_s:
            return False
        n_most = self._n_most()
        return n_most is None or len(self._ended) + self._n_searched() < n_most

    def _n_most(self) -> int | None:
        wanted = self._effort.n_trials
        if wanted is None and self._effort.timeout_s is None and self._study.n_most is None:
            wanted = DEFAULT_TRIALS
        limits = [limit for limit in (wanted, self._study.n_most) if limit is not None]
        return min(limits, default=None)

    def _n_searched(self) -> int:
        return sum(trial.number != _DEFAULTS for trial in self._under_way.values())

    def _task(self, trial: Trial) -> Task:
        fold = len(trial.folds)
        return Task(
            self._question.algorithm,
            (*self._question.fixed, *assignments(trial.settings)),
            self._question.measure,
            self._question.protocol,
            fold,
            self._seeds[fold],
        )

    def _after(self, trial: Trial, outcome: Outcome) -> Trial:
        """Keep what a task came to; return the trial, which has ended or is still running."""
        if not isinstance(outcome, Failed):
            self._fold_s.append(outcome.seconds)
        if trial.number == _DEFAULTS:
            return self._after_defaults(trial, outcome)
        if isinstance(outcome, Failed):
            self._study.fail(trial, outcome.why)
            return self._end(dataclasses.replace(trial, state="failed", why=outcome.why))
        return self._judged(self._study.report(trial, outcome.value, outcome.seconds))

    def _judged(self, trial: Trial) -> Trial:
        """End a trial that has all its folds, or that is not worth another."""
        if trial.number == _DEFAULTS:
            return trial
        if len(trial.folds) == len(self._seeds):
            self._study.complete(trial)
            return self._end(dataclasses.replace(trial, state="complete"))
        complete = [other.folds for other in self._ended if other.state == "complete"]
        is_pruned = (
            self._effort.prune
            and bool(trial.folds)
            and is_hopeless(trial.folds, complete, lower_is_better=self._question.lower_is_better)
        )
        if is_pruned:
            self._study.prune(trial)
            return self._end(dataclasses.replace(trial, state="pruned"))
        return trial

    def _copied(self, trial: Trial) -> Trial:
        """End a trial at once if its settings were tried before: it would come to the same."""
        worth = [other for other in self._ended if self._effort.prune or other.state != "pruned"]
        twin = next((other for other in worth if other.settings == trial.settings), None)
        if twin is None:
            return trial
        if twin.why is not None:
            return self._after(trial, Failed(twin.why))
        for value in twin.folds:
            trial = self._study.report(trial, value, 0.0)
        if twin.state == "complete":
            return self._judged(trial)
        self._study.prune(trial)
        return self._end(dataclasses.replace(trial, state="pruned"))

    def _after_defaults(self, trial: Trial, outcome: Outcome) -> Trial:
        if isinstance(outcome, Failed):
            self._study.defaults = {"why": outcome.why}
            return dataclasses.replace(trial, state="failed")
        folds, seconds = (*trial.folds, outcome.value), (*trial.seconds, outcome.seconds)
        if len(folds) == len(self._seeds):
            self._study.defaults = {"folds": folds, "seconds": seconds}
            return dataclasses.replace(trial, state="complete")
        return dataclasses.replace(trial, folds=folds, seconds=seconds)

    def _end(self, trial: Trial) -> Trial:
        self._ended.append(trial)
        return trial

    def _tell(self, ended: Trial | None) -> None:
        n_folds = sum(len(trial.folds) for trial in self._under_way.values() if trial.number != _DEFAULTS)
        ranked = search_result.ranked(self._ended, lower_is_better=self._question.lower_is_better)
        best = ranked[0] if ranked else None
        defaults = [len(trial.folds) for trial in self._under_way.values() if trial.number == _DEFAULTS]
        self._watch(
            SearchProgress(
                len(self._ended),
                self._n_most(),
                n_folds,
                best,
                ended,
                folds_of_trial=len(self._seeds),
                fold_s=float(np.mean(self._fold_s)) if self._fold_s else None,
                defaults_folds=defaults[0] if defaults else None,
                n_at_a_time=self._workers.n_workers,
            )
        )
