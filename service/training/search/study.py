"""What has been tried so far, and what to try next: Optuna's study as the search needs it.

Invariants: a study is of one question (data, algorithm, space, measure, folds, seed) and is refused for another. What
is tried next is a function of the seed and of the trials before it, so that a search that was killed and resumed tries
what it would have tried anyway. A trial that was under way goes on with its first fold that has no value.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from service.errors import UsageError
from service.training.search.search_space import Dimension, Range, Settings, Space, Value, grid
from service.training.search.study_journal import StudyJournal

Method: TypeAlias = Literal["tpe", "grid", "random"]
METHODS: Final[tuple[Method, ...]] = ("tpe", "grid", "random")
State: TypeAlias = Literal["running", "complete", "pruned", "failed"]

# With fewer complete trials the importance of a setting says nothing.
LEAST_FOR_IMPORTANCE: Final = 8
_NAME: Final = "recollect"
_QUESTION, _DEFAULTS, _WHY, _SECONDS = "question", "defaults", "why", "seconds"


@dataclass(frozen=True)
class Trial:
    """One candidate and how it did.

    Attributes:
        number: Its place in the study, from 0.
        settings: Those that are searched.
        folds: The measure on each fold so far.
        seconds: What each of them took, fitting and measuring.
        state: Whether it is under way, has all folds, was given up between two, or failed.
        why: If it failed, the sentence.
    """

    number: int
    settings: Settings
    folds: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    state: State = "running"
    why: str | None = None

    @property
    def mean(self) -> float:
        """The mean over the folds so far, of which there is at least one."""
        return float(np.mean(self.folds))


class Study:
    """All trials of a search.

    Args:
        study: Optuna's, with our question in it.
        space: What is searched.
        method: How the next trial is chosen.
        seed: Decides that choice together with the trials so far.
        parallel: Whether trials are chosen while others are under way.
    """

    def __init__(self, study: optuna.Study, space: Space, method: Method, *, seed: int, parallel: bool) -> None:
        self._study = study
        self._storage = study._storage  # noqa: SLF001  # the storage that `opened` made
        self._id = self._storage.get_study_id_from_name(_NAME)
        self._distributions = {name: _distribution(dimension) for name, dimension in space.items()}
        self._method = method
        self._seed = seed
        self._parallel = parallel
        self._grid = _shuffled(grid(space), seed) if method == "grid" else []
        self._abandon_half_made()

    def __repr__(self) -> str:
        return f"<Study {len(self.trials())} trials, {self._method}>"

    @property
    def n_most(self) -> int | None:
        """How many trials there can be; None if there is no end to them."""
        return len(self._grid) if self._method == "grid" else None

    @property
    def defaults(self) -> dict[str, Any] | None:
        """What measuring the settings as they are without the search gave; None before that."""
        found: dict[str, Any] | None = self._study.user_attrs.get(_DEFAULTS)
        return found

    @defaults.setter
    def defaults(self, value: Mapping[str, Any]) -> None:
        self._study.set_user_attr(_DEFAULTS, dict(value))

    def trials(self) -> list[Trial]:
        """Return every trial, in the order in which they began."""
        return [_trial(frozen) for frozen in self._frozen()]

    def next(self) -> Trial | None:
        """Begin a trial; None if the grid has no other point."""
        sampler = self._sampler()
        if sampler is None:
            return None
        self._study.sampler = sampler
        asked = self._study.ask(self._distributions)
        return Trial(asked.number, asked.params)

    def report(self, trial: Trial, value: float, seconds: float) -> Trial:
        """Keep the measure of a trial's next fold.

        Returns:
            The trial with that fold.
        """
        row = self._row(trial)
        folds, took = (*trial.folds, value), (*trial.seconds, seconds)
        self._storage.set_trial_user_attr(row, _SECONDS, list(took))
        self._storage.set_trial_intermediate_value(row, len(trial.folds), value)
        return Trial(trial.number, trial.settings, folds, took)

    def complete(self, trial: Trial) -> None:
        """Keep that a trial has all its folds."""
        self._study.tell(trial.number, trial.mean)

    def prune(self, trial: Trial) -> None:
        """Keep that a trial was given up."""
        self._study.tell(trial.number, state=TrialState.PRUNED)

    def fail(self, trial: Trial, why: str) -> None:
        """Keep that a trial failed, and the sentence that says why."""
        self._storage.set_trial_user_attr(self._row(trial), _WHY, why)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Return how much each setting decides whether a trial is among the better ones; the shares add up to 1.

        By PED-ANOVA (Watanabe, Bansal and Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in
        arbitrary subspaces", IJCAI 2023), over the complete trials.

        Returns:
            Settings to shares, largest first; empty if there are too few trials or they are all alike.
        """
        complete = [trial for trial in self.trials() if trial.state == "complete"]
        if len(complete) < LEAST_FOR_IMPORTANCE or len({trial.mean for trial in complete}) == 1:
            return {}
        shares = get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())
        return {name: float(share) for name, share in shares.items()} if np.isfinite([*shares.values()]).all() else {}

    def _frozen(self) -> list[FrozenTrial]:
        # What a kill left half made has failed without a reason.
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state is not TrialState.FAIL or _WHY in trial.user_attrs]

    def _row(self, trial: Trial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)

    def _abandon_half_made(self) -> None:
        """Forget a trial that a kill left without all its settings; the next one will have them."""
        for frozen in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if frozen.params.keys() != self._distributions.keys():
                self._study.tell(frozen.number, state=TrialState.FAIL)

    def _sampler(self) -> BaseSampler | None:
        frozen = self._frozen()
        seed = int(np.random.SeedSequence([self._seed, len(frozen)]).generate_state(1)[0])
        if self._method == "grid":
            taken = {_key(trial.params) for trial in frozen}
            point = next((point for point in self._grid if _key(point) not in taken), None)
            return None if point is None else _Point(point)
        if self._method == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, multivariate=True, constant_liar=self._parallel)


@contextmanager
def opened(
    path: Path | None,
    question: Mapping[str, Any],
    space: Space,
    method: Method,
    *,
    seed: int,
    lower_is_better: bool,
    parallel: bool,
) -> Iterator[Study]:
    """Open a study, or begin one.

    Args:
        path: Its file; None to keep nothing.
        question: What it is a study of, as plain JSON values.
        space: What is searched.
        method: How trials are chosen.
        seed: Decides that choice.
        lower_is_better: Whether the measure is an error.
        parallel: Whether trials are chosen while others are under way.

    Raises:
        UsageError: The file cannot be written, is in use, is no study, or is a study of another question.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna warns of what it calls experimental, which the person who searches can do nothing about.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if path is None:
            yield Study(_begun(None, question, lower_is_better), space, method, seed=seed, parallel=parallel)
            return
        with StudyJournal(path) as journal:
            study = _begun(journal, question, lower_is_better)
            _require_same(path, study.user_attrs.get(_QUESTION), question)
            yield Study(study, space, method, seed=seed, parallel=parallel)


def _begun(journal: StudyJournal | None, question: Mapping[str, Any], lower_is_better: bool) -> optuna.Study:  # noqa: FBT001
    storage = optuna.storages.InMemoryStorage() if journal is None else journal.storage()
    if _NAME in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=_NAME, storage=storage)
    else:
        direction = StudyDirection.MINIMIZE if lower_is_better else StudyDirection.MAXIMIZE
        study = optuna.create_study(storage=storage, study_name=_NAME, direction=direction)
    if _QUESTION not in study.user_attrs:
        study.set_user_attr(_QUESTION, _plain(question))
    return study


def _require_same(path: Path, kept: Any, question: Mapping[str, Any]) -> None:
    for name, value in _plain(question).items():
        before = kept.get(name)
        if before != value:
            raise UsageError(
                f"the study {path} is of another question: its {name.replace('_', ' ')} is {_short(before)}, not "
                f"{_short(value)}; give another --study"
            )


def _plain(question: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(question))
    return plain


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


class _Point(BaseSampler):
    """One point of a grid."""

    def __init__(self, point: Settings) -> None:
        self._point = point

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: settings are given one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the point's value of a setting."""
        return self._point[param_name]


def _distribution(dimension: Dimension) -> BaseDistribution:
    if not isinstance(dimension, Range):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _shuffled(points: Sequence[dict[str, Value]], seed: int) -> list[dict[str, Value]]:
    """Return the points in an order of which a beginning says something about all of the grid."""
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[index] for index in order]


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


_STATES: Final[dict[TrialState, State]] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def _trial(frozen: FrozenTrial) -> Trial:
    folds = tuple(frozen.intermediate_values[step] for step in sorted(frozen.intermediate_values))
    seconds = tuple(frozen.user_attrs.get(_SECONDS, ()))[: len(folds)]
    return Trial(frozen.number, frozen.params, folds, seconds, _STATES[frozen.state], frozen.user_attrs.get(_WHY))
