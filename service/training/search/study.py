"""The study of a search: its trials so far and the choice of the next one, by Optuna.

Invariants: a study belongs to one specification (data, algorithm, space, measure, folds, seed) and is refused for
another. The next trial is a function of the seed and of the trials before it, so that a search that was killed and
resumed makes the same trials. A resumed trial continues with its first fold without a value.
"""

import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
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
from service.training.search.search_space import Dimension, HyperparameterValues, Range, Space, Value, grid
from service.training.search.study_journal import StudyJournal

Method: TypeAlias = Literal["tpe", "grid", "random"]
METHODS: Final[tuple[Method, ...]] = ("tpe", "grid", "random")
State: TypeAlias = Literal["running", "complete", "pruned", "failed"]

# The importance of a hyperparameter is meaningless with fewer complete trials.
MIN_TRIALS_FOR_IMPORTANCE: Final = 8
_NAME: Final = "recollect"
# User attributes in the study's file.
_SPEC, _DEFAULTS, _WHY, _SECONDS = "question", "defaults", "why", "seconds"


@dataclass(frozen=True)
class Trial:
    """One combination of hyperparameter values and its measure."""

    number: int  # its position in the study, from 0
    settings: HyperparameterValues  # the values of the searched hyperparameters
    folds: tuple[float, ...] = ()  # the measure on each fold so far
    seconds: tuple[float, ...] = ()  # the time of each of them, fitting and measuring
    state: State = "running"  # under way, measured on all folds, ended between two, or failed
    why: str | None = None  # the sentence of a failure

    @property
    def mean(self) -> float:
        """The mean over the folds so far, of which there is at least one."""
        return float(np.mean(self.folds))


@dataclass(frozen=True)
class DefaultsRun:
    """The measure of the default values, which trials are compared with; it is no trial."""

    folds: tuple[float, ...] = ()  # the measure on each fold so far
    seconds: tuple[float, ...] = ()  # the time of each of them, fitting and measuring
    why: str | None = None  # the sentence of a failure


class Study:
    """All trials of a search.

    Args:
        study: Optuna's study.
        space: What is searched.
        method: How the next trial is chosen.
        seed: Decides that choice together with the trials so far.
        parallel: Whether trials are chosen while others are under way.
    """

    def __init__(self, study: optuna.Study, space: Space, method: Method, *, seed: int, parallel: bool) -> None:
        self._study = study
        self._storage = study._storage  # noqa: SLF001  # the storage that `open_study` made
        self._id = self._storage.get_study_id_from_name(_NAME)
        self._distributions = {name: _distribution(dimension) for name, dimension in space.items()}
        self._method = method
        self._seed = seed
        self._parallel = parallel
        self._grid = _shuffled(grid(space), seed) if method == "grid" else []
        self._fail_incomplete_trials()

    def __repr__(self) -> str:
        return f"<Study {len(self.trials())} trials, {self._method}>"

    @property
    def n_grid_points(self) -> int | None:
        """How many points the grid has; None if the method is not "grid"."""
        return len(self._grid) if self._method == "grid" else None

    @property
    def defaults(self) -> DefaultsRun | None:
        """The measure of the default values; None before it is kept."""
        kept: dict[str, Any] | None = self._study.user_attrs.get(_DEFAULTS)
        if kept is None:
            return None
        return DefaultsRun(tuple(kept.get("folds", ())), tuple(kept.get("seconds", ())), kept.get("why"))

    @defaults.setter
    def defaults(self, run: DefaultsRun) -> None:
        kept = {name: value for name, value in dataclasses.asdict(run).items() if value}
        self._study.set_user_attr(_DEFAULTS, kept)

    def trials(self) -> list[Trial]:
        """Return every trial, in the order in which they began."""
        return [_trial(frozen) for frozen in self._frozen_trials()]

    def next(self) -> Trial | None:
        """Begin a trial; None if the grid has no other point."""
        sampler = self._sampler()
        if sampler is None:
            return None
        self._study.sampler = sampler
        asked = self._study.ask(self._distributions)
        return Trial(asked.number, asked.params)

    def report(self, trial: Trial, value: float, seconds: float) -> Trial:
        """Keep the measure of a trial's next fold, and return the trial with that fold."""
        trial_id = self._trial_id(trial)
        all_seconds = (*trial.seconds, seconds)
        self._storage.set_trial_user_attr(trial_id, _SECONDS, list(all_seconds))
        self._storage.set_trial_intermediate_value(trial_id, len(trial.folds), value)
        return Trial(trial.number, trial.settings, (*trial.folds, value), all_seconds)

    def complete(self, trial: Trial) -> None:
        """Keep that a trial has all its folds."""
        self._study.tell(trial.number, trial.mean)

    def prune(self, trial: Trial) -> None:
        """Keep that a trial ended early."""
        self._study.tell(trial.number, state=TrialState.PRUNED)

    def fail(self, trial: Trial, why: str) -> None:
        """Keep that a trial failed, and the sentence that says why."""
        self._storage.set_trial_user_attr(self._trial_id(trial), _WHY, why)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Return how much each hyperparameter decides whether a trial is among the better ones.

        Source: PED-ANOVA (Watanabe, Bansal and Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in
        arbitrary subspaces", IJCAI 2023), over the complete trials.

        Returns:
            Names to shares that add up to 1, largest first; empty with too few trials or equal means.
        """
        complete = [trial for trial in self.trials() if trial.state == "complete"]
        if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len({trial.mean for trial in complete}) == 1:
            return {}
        shares = get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())
        return {name: float(share) for name, share in shares.items()} if np.isfinite([*shares.values()]).all() else {}

    def _frozen_trials(self) -> list[FrozenTrial]:
        # A trial that failed without a reason is one that a kill left incomplete.
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state is not TrialState.FAIL or _WHY in trial.user_attrs]

    def _trial_id(self, trial: Trial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)

    def _fail_incomplete_trials(self) -> None:
        """Fail a trial that a kill left without all its values; the next trial has the same values."""
        for frozen in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if frozen.params.keys() != self._distributions.keys():
                self._study.tell(frozen.number, state=TrialState.FAIL)

    def _sampler(self) -> BaseSampler | None:
        frozen = self._frozen_trials()
        seed = int(np.random.SeedSequence([self._seed, len(frozen)]).generate_state(1)[0])
        if self._method == "grid":
            tried = {_key(trial.params) for trial in frozen}
            point = next((point for point in self._grid if _key(point) not in tried), None)
            return None if point is None else _GridPointSampler(point)
        if self._method == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, multivariate=True, constant_liar=self._parallel)


@contextmanager
def open_study(
    path: Path | None,
    spec: Mapping[str, Any],
    space: Space,
    method: Method,
    *,
    seed: int,
    lower_is_better: bool,
    parallel: bool,
) -> Iterator[Study]:
    """Open a study, or begin one.

    A path of None keeps nothing. The specification is plain JSON values; the other arguments are those of `Study`.

    Raises:
        UsageError: The file cannot be written, is in use, is no study, or is a study of another specification.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna warns of experimental features; the user of a search can do nothing about them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        with nullcontext() if path is None else StudyJournal(path) as journal:
            study = _load_or_create(journal, spec, lower_is_better)
            _require_same_spec(path, study.user_attrs.get(_SPEC), spec)
            yield Study(study, space, method, seed=seed, parallel=parallel)


def _load_or_create(journal: StudyJournal | None, spec: Mapping[str, Any], lower_is_better: bool) -> optuna.Study:  # noqa: FBT001
    storage = optuna.storages.InMemoryStorage() if journal is None else journal.storage()
    if _NAME in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=_NAME, storage=storage)
    else:
        direction = StudyDirection.MINIMIZE if lower_is_better else StudyDirection.MAXIMIZE
        study = optuna.create_study(storage=storage, study_name=_NAME, direction=direction)
    if _SPEC not in study.user_attrs:
        study.set_user_attr(_SPEC, _plain_json(spec))
    return study


def _require_same_spec(path: Path | None, kept: Any, spec: Mapping[str, Any]) -> None:
    for name, value in _plain_json(spec).items():
        before = kept.get(name)
        if before != value:
            raise UsageError(
                f"The study {path} is of another search: its {name.replace('_', ' ')} is {_abbreviated(before)}, not "
                f"{_abbreviated(value)}; give another --study."
            )


def _plain_json(spec: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(spec))
    return plain


def _abbreviated(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


class _GridPointSampler(BaseSampler):
    """A sampler that returns one point of a grid, value by value."""

    def __init__(self, point: HyperparameterValues) -> None:
        self._point = point

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._point[param_name]


def _distribution(dimension: Dimension) -> BaseDistribution:
    if not isinstance(dimension, Range):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _shuffled(points: Sequence[dict[str, Value]], seed: int) -> list[dict[str, Value]]:
    """Return the points in random order, so that the first ones are a sample of the whole grid."""
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[index] for index in order]


def _key(values: HyperparameterValues) -> str:
    return json.dumps(values, sort_keys=True)


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
