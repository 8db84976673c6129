"""The specification of a search, and how much work it may do.

Invariant: whatever makes two trials comparable is in `SearchSpec`, and nothing else is. So a study belongs to one
`SearchSpec`, and can be continued with any `SearchOptions`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import UsageError
from service.training import hyperparameters
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.measures.per_user import MeasureName
from service.training.interactions import Interactions
from service.training.search.search_space import Space
from service.training.search.study import Method

DEFAULT_TRIALS: Final = 50
# A search splits a single dataset itself.
SPLITS: Final = ("folds", "leave-one-out", "time", "time-per-user")
_COMPARED_FIELDS: Final = ("split", "folds", "test_share", "seed", "relevant_from", "most_users")


@dataclass(frozen=True)
class SearchSpec:
    """What is searched for; searches with equal specifications share a study.

    Raises:
        UsageError: A search cannot use the protocol's split.
    """

    algorithm: str  # its name, or a preset's
    fixed: tuple[str, ...]  # `name=value` texts of the hyperparameters that are not searched
    space: Space  # of the searched ones
    measure: str  # the measure to improve, such as "rmse" or "ndcg@10"
    protocol: EvaluationProtocol  # one of `SPLITS`, and which items are relevant; its seed decides trials too

    def __post_init__(self) -> None:
        if self.protocol.split not in SPLITS:
            raise UsageError(f"A search cannot use the split {self.protocol.split!r}; it can use {', '.join(SPLITS)}.")

    @property
    def lower_is_better(self) -> bool:
        """Whether the measure is an error."""
        return MeasureName.parse(self.measure).lower_is_better

    def candidate(self) -> ConfiguredAlgorithm:
        """Return the algorithm with the fixed hyperparameters and the defaults of the searched ones.

        Raises:
            UsageError: The hyperparameters do not go together, or there is no such algorithm.
        """
        return ConfiguredAlgorithm.parse(self.algorithm, self.fixed)

    def as_json(self, data: Interactions) -> dict[str, Any]:
        """Return the identity of a search on some data, as plain JSON values."""
        resolved = hyperparameters.as_json(self.candidate().config)
        return {
            "data": data.fingerprint,
            "algorithm": self.algorithm,
            "measure": self.measure,
            **{name: getattr(self.protocol, name) for name in _COMPARED_FIELDS},
            "space": {name: str(dimension) for name, dimension in self.space.items()},
            "settings": {name: value for name, value in resolved.items() if name not in self.space},
        }


@dataclass(frozen=True)
class SearchOptions:
    """The method and the effort of a search, which may change when it is continued."""

    method: Method = "tpe"  # how the next trial is chosen
    n_trials: int | None = None  # at most; None: the whole grid, or `DEFAULT_TRIALS` without a time limit
    timeout_s: float | None = None  # no trial begins after so many seconds; None: no limit
    n_workers: int = 1  # how many trials are measured at a time
    n_threads: int = 0  # how many threads each may use; 0 for all cores
    prune: bool = True  # whether a trial that is worse than the median on its first folds ends early
    study: Path | None = None  # the file that keeps the trials; None to keep none
