"""Runs a search: measures trial after trial until the options end it.

Invariants: every trial is measured on the same splits, with the same generator for the fit on each, so that trials
differ by their hyperparameters alone. With one worker the trials are a function of data, specification and method,
apart from seconds. A trial that fails is kept with its reason and does not end the search.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from service.training.evaluation import measurement, split_dataset
from service.training.interactions import Interactions
from service.training.search import search_result, shared_dataset
from service.training.search.pruning import should_prune
from service.training.search.search_space import assignments
from service.training.search.search_spec import DEFAULT_TRIALS, SearchOptions, SearchSpec
from service.training.search.study import DefaultsRun, Study, Trial, open_study
from service.training.search.workers import FoldFailed, FoldMeasured, FoldResult, FoldTask, Workers

_Run: TypeAlias = Trial | DefaultsRun


@dataclass(frozen=True)
class SearchProgress:
    """How far a search has come."""

    n_ended: int  # trials that are complete, pruned or failed
    n_trials: int | None  # how many there will be; None if only the time limit ends the search
    n_folds_under_way: int  # folds measured of the trials under way
    best: Trial | None  # the best complete trial; None before the first
    ended: Trial | None  # the trial that has just ended; None if none has
    n_folds: int = 1  # how many folds a whole trial has
    fold_s: float | None = None  # mean seconds of the folds measured in this run; None before the first
    n_defaults_folds: int | None = None  # folds measured of the defaults, which come first; None at their end
    n_workers: int = 1  # trials that are measured at the same time


def search(
    data: Interactions,
    spec: SearchSpec,
    options: SearchOptions,
    *,
    on_progress: Callable[[SearchProgress], None] = lambda _: None,
) -> dict[str, Any]:
    """Search, or continue a search. Ctrl-C ends it with the trials so far, and a study keeps those under way.

    Args:
        data: The ratings.
        spec: What is searched for.
        options: How, and how much.
        on_progress: Called after each fold.

    Returns:
        Everything about it as plain JSON values: `data`, `algorithm`, `protocol`, `space`, `fixed`, `defaults`, `best`,
        `importance`, `ranked` (numbers of the complete trials, best first), `trials`, `seconds`, `is_interrupted`.

    Raises:
        UsageError: The measure does not suit the algorithm, the data cannot be split so, or the study is refused.
        RunError: No trial is complete at the end.
        KeyboardInterrupt: Ctrl-C came before one was.
    """
    measurement.parse_measures(spec.candidate(), [spec.measure])
    started_s = time.monotonic()
    splits = list(split_dataset.split_positions(data, spec.protocol))
    opened = open_study(
        options.study,
        spec.as_json(data),
        spec.space,
        options.method,
        seed=spec.protocol.seed,
        lower_is_better=spec.lower_is_better,
        parallel=options.n_workers > 1,
    )
    with opened as study, tempfile.TemporaryDirectory(prefix="recollect-search-") as folder:
        shared_dataset.write(Path(folder), data, splits)
        with Workers(Path(folder), options.n_workers, options.n_threads) as workers:
            loop = _SearchLoop(spec, options, study, workers, on_progress)
            is_interrupted = not loop.run(started_s)
        if is_interrupted and all(trial.state != "complete" for trial in study.trials()):
            raise KeyboardInterrupt
        found = search_result.as_json(data, spec, options, study)
    found["protocol"]["held_out"] = [int(test.size) for _, test in splits]
    return found | {"seconds": time.monotonic() - started_s, "is_interrupted": is_interrupted}


class _SearchLoop:
    """Moves fold results from the workers to the study, and trials from the study to the workers."""

    def __init__(
        self,
        spec: SearchSpec,
        options: SearchOptions,
        study: Study,
        workers: Workers,
        on_progress: Callable[[SearchProgress], None],
    ) -> None:
        self._spec, self._options, self._study, self._workers = spec, options, study, workers
        self._seeds: Sequence[np.random.SeedSequence] = spec.protocol.seeds().fits
        self._on_progress = on_progress
        trials = study.trials()
        self._ended = [trial for trial in trials if trial.state != "running"]
        # Trials that an earlier run left under way.
        self._resumed = [trial for trial in trials if trial.state == "running"]
        self._needs_defaults = study.defaults is None
        self._under_way: dict[int, _Run] = {}
        self._fold_s: list[float] = []

    def run(self, started_s: float) -> bool:
        """Measure until no more trials may begin; return False if Ctrl-C came before."""
        try:
            while True:
                for worker in range(self._workers.n_workers):
                    if worker not in self._under_way and (run := self._next_run(started_s)) is not None:
                        self._start(worker, run)
                self._notify(None)
                if not self._under_way:
                    return True
                for worker, result in self._workers.results():
                    self._handle(worker, self._under_way.pop(worker), result)
        except KeyboardInterrupt:
            return False

    def _next_run(self, started_s: float) -> _Run | None:
        """Return a run that needs a fold: the defaults first, then resumed trials, then new ones; None at the end."""
        if self._needs_defaults:
            self._needs_defaults = False
            return DefaultsRun()
        while True:
            if self._resumed:
                trial = self._end_if_decided(self._resumed.pop(0))
            elif not self._may_begin(started_s) or (begun := self._study.next()) is None:
                return None
            else:
                trial = self._copy_if_tried(begun)
            if trial.state == "running":
                return trial
            self._notify(trial)

    def _may_begin(self, started_s: float) -> bool:
        timeout_s = self._options.timeout_s
        if timeout_s is not None and time.monotonic() - started_s >= timeout_s:
            return False
        n_trials = self._n_trials()
        n_under_way = sum(isinstance(run, Trial) for run in self._under_way.values())
        return n_trials is None or len(self._ended) + n_under_way < n_trials

    def _n_trials(self) -> int | None:
        limit, n_points = self._options.n_trials, self._study.n_grid_points
        if limit is None and n_points is None and self._options.timeout_s is None:
            return DEFAULT_TRIALS
        return min((n for n in (limit, n_points) if n is not None), default=None)

    def _start(self, worker: int, run: _Run) -> None:
        fold = len(run.folds)
        searched = assignments(run.settings) if isinstance(run, Trial) else []
        task = FoldTask(
            self._spec.algorithm,
            (*self._spec.fixed, *searched),
            self._spec.measure,
            self._spec.protocol,
            fold,
            self._seeds[fold],
        )
        self._under_way[worker] = run
        self._workers.start(worker, task)

    def _handle(self, worker: int, run: _Run, result: FoldResult) -> None:
        """Keep a fold's result, and give the worker the run's next fold if it has one."""
        if isinstance(result, FoldMeasured):
            self._fold_s.append(result.seconds)
        if isinstance(run, DefaultsRun):
            if (unfinished := self._add_to_defaults(run, result)) is not None:
                self._start(worker, unfinished)
            self._notify(None)
            return
        trial = self._add_to_trial(run, result)
        if trial.state == "running":
            self._start(worker, trial)
        self._notify(None if trial.state == "running" else trial)

    def _add_to_defaults(self, run: DefaultsRun, result: FoldResult) -> DefaultsRun | None:
        """Return the run if it needs another fold."""
        if isinstance(result, FoldFailed):
            self._study.defaults = DefaultsRun(why=result.why)
            return None
        run = DefaultsRun((*run.folds, result.value), (*run.seconds, result.seconds))
        if len(run.folds) < len(self._seeds):
            return run
        self._study.defaults = run
        return None

    def _add_to_trial(self, trial: Trial, result: FoldResult) -> Trial:
        """Return the trial, which has ended or is still running."""
        if isinstance(result, FoldFailed):
            self._study.fail(trial, result.why)
            return self._end(dataclasses.replace(trial, state="failed", why=result.why))
        return self._end_if_decided(self._study.report(trial, result.value, result.seconds))

    def _end_if_decided(self, trial: Trial) -> Trial:
        """End a trial that has all its folds, or that is to be pruned."""
        if len(trial.folds) == len(self._seeds):
            self._study.complete(trial)
            return self._end(dataclasses.replace(trial, state="complete"))
        complete = [other.folds for other in self._ended if other.state == "complete"]
        lower_is_better = self._spec.lower_is_better
        if self._options.prune and trial.folds and should_prune(trial.folds, complete, lower_is_better=lower_is_better):
            return self._prune(trial)
        return trial

    def _copy_if_tried(self, trial: Trial) -> Trial:
        """End a trial at once if an ended one has the same values, since it would have the same result."""
        reusable = [other for other in self._ended if self._options.prune or other.state != "pruned"]
        twin = next((other for other in reusable if other.settings == trial.settings), None)
        if twin is None:
            return trial
        if twin.why is not None:
            return self._add_to_trial(trial, FoldFailed(twin.why))
        for value in twin.folds:
            trial = self._study.report(trial, value, 0.0)
        return self._end_if_decided(trial) if twin.state == "complete" else self._prune(trial)

    def _prune(self, trial: Trial) -> Trial:
        self._study.prune(trial)
        return self._end(dataclasses.replace(trial, state="pruned"))

    def _end(self, trial: Trial) -> Trial:
        self._ended.append(trial)
        return trial

    def _notify(self, ended: Trial | None) -> None:
        best = search_result.ranked(self._ended, lower_is_better=self._spec.lower_is_better)[:1]
        runs = self._under_way.values()
        self._on_progress(
            SearchProgress(
                n_ended=len(self._ended),
                n_trials=self._n_trials(),
                n_folds_under_way=sum(len(run.folds) for run in runs if isinstance(run, Trial)),
                best=best[0] if best else None,
                ended=ended,
                n_folds=len(self._seeds),
                fold_s=float(np.mean(self._fold_s)) if self._fold_s else None,
                n_defaults_folds=next((len(run.folds) for run in runs if isinstance(run, DefaultsRun)), None),
                n_workers=self._workers.n_workers,
            )
        )
