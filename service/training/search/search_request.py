"""What a person asks of a search, and what it may cost.

Invariant: whatever makes one trial comparable with another is in the `SearchSpec`, and nothing else is; so a study is
bound to its question, and may be gone on with at any `SearchOptions`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import UsageError
from service.training.algorithms import hyperparameters
from service.training.algorithms.registry import Candidate
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.measures.per_user import MeasureName
from service.training.interactions import Interactions
from service.training.search.search_space import Space
from service.training.search.study import Method

DEFAULT_TRIALS: Final = 50
# A search has one set of data, which it cuts itself.
SPLITS: Final = ("folds", "leave-one-out", "time", "time-per-user")
_ASKED: Final = ("split", "folds", "test_share", "seed", "relevant_from", "most_users")


@dataclass(frozen=True)
class SearchSpec:
    """What is searched for; two searches with the same question share a study.

    Attributes:
        algorithm: Its name, or a preset's.
        fixed: `name=value` texts of the settings that are not searched.
        space: Those that are.
        measure: What makes a trial better, as `service.training.evaluation.measurement` names it.
        protocol: How the data is cut and what is relevant, with one of `SPLITS`; its seed decides the folds, the fits,
            and with the trials before it each next trial.
    """

    algorithm: str
    fixed: tuple[str, ...]
    space: Space
    measure: str
    protocol: EvaluationProtocol

    def __post_init__(self) -> None:
        """Check that a search can use the split.

        Raises:
            UsageError: It cannot.
        """
        if self.protocol.split not in SPLITS:
            raise UsageError(f"a search cannot use the split {self.protocol.split!r}; it can use {', '.join(SPLITS)}")

    @property
    def lower_is_better(self) -> bool:
        """Whether the measure is an error."""
        return MeasureName.parse(self.measure).lower_is_better

    def candidate(self) -> Candidate:
        """Return the algorithm with the fixed settings, and without those that are searched.

        Raises:
            UsageError: The settings do not go together, or there is no such algorithm.
        """
        return Candidate.parse(self.algorithm, self.fixed)

    def as_json(self, data: Interactions) -> dict[str, Any]:
        """Return what makes two searches the same, as plain JSON values."""
        resolved = hyperparameters.as_json(self.candidate().config)
        return {
            "data": data.fingerprint,
            "algorithm": self.algorithm,
            "measure": self.measure,
            **{name: getattr(self.protocol, name) for name in _ASKED},
            "space": {name: str(dimension) for name, dimension in self.space.items()},
            "settings": {name: value for name, value in resolved.items() if name not in self.space},
        }


@dataclass(frozen=True)
class SearchOptions:
    """How a search is done, which does not change what it searches for.

    Attributes:
        method: How the next trial is chosen.
        n_trials: How many trials the study is to have at most; None: the whole grid, or `DEFAULT_TRIALS` unless there
            is a time limit.
        timeout_s: No trial begins after so many seconds; None: no limit.
        n_workers: How many trials are measured at a time.
        n_threads: How many threads each may use; 0 for all cores.
        prune: Whether a trial that does badly on its first folds is given up.
        study: The file that keeps the trials; None to keep none.
    """

    method: Method = "tpe"
    n_trials: int | None = None
    timeout_s: float | None = None
    n_workers: int = 1
    n_threads: int = 0
    prune: bool = True
    study: Path | None = None
