"""Algorithms by their name on the command line.

A module is imported when one of its algorithms is first used, because compiled kernels are slow to import.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import UsageError, did_you_mean
from service.models.snapshot import ModelSnapshot
from service.training import hyperparameters
from service.training.algorithms import predictions
from service.training.interactions import Interactions, Progress

Fit = Callable[[Interactions, Any, np.random.Generator, Progress], ModelSnapshot]
Predict = Callable[[ModelSnapshot, NDArray[np.int32], NDArray[np.int32]], NDArray[np.float64]]
ListTopN = Callable[[NDArray[np.int64], int], NDArray[np.int32]]
"""(user_rows, n) -> lists of n item rows for users, best first: int32 (m, n), padded with -1."""
FitMeasured = Callable[
    [Interactions, NDArray[np.int64], Any, np.random.Generator, Progress], tuple[ModelSnapshot, ListTopN]
]
Kind: TypeAlias = Literal["rating", "ranking"]


@dataclass(frozen=True)
class Algorithm:
    """A Config and a fit.

    Attributes:
        config: The class of its hyperparameters.
        fit: (data, config, rng, progress) -> snapshot. `data` has at least one row. The same data, config and generator
            give the same bytes on any number of threads. Users and items without a row have no bias, no factors and no
            neighbours. `progress` reports epochs, samples or items.
        kind: "rating" if scores are predicted ratings; "ranking" if only their order has a meaning.
        predict: (snapshot, user_rows, item_rows) -> predicted ratings, float64 (n,), clipped to the rating scale. By
            default the served score; the exact definition if the served model keeps only some neighbours.
        fit_measured: (data, hidden, config, rng, progress) -> the snapshot of all data, and lists that leave out the
            hidden positions, int64 (m,), of the listed user. None unless that needs no second fit.
    """

    config: type[Any]
    fit: Fit
    kind: Kind = "rating"
    predict: Predict = predictions.predict
    fit_measured: FitMeasured | None = None


# By extra: the package whose modules need it.
_FOLDERS: Final = {"train": "service.training.algorithms", "deep": "service.training.networks"}
# The extra and the module of each algorithm, which holds it in its table `ALGORITHMS`.
_MODULES: Final = {
    "svd": ("train", "svd"),
    "svdpp": ("train", "svdpp"),
    "nmf": ("train", "nmf"),
    "bayesian_mf": ("train", "bayesian_mf.bayesian_mf"),
    "slope_one": ("train", "slope_one"),
    "knn_basic": ("train", "knn"),
    "knn_means": ("train", "knn"),
    "knn_baseline": ("train", "knn"),
    "baseline": ("train", "baseline"),
    "ials": ("train", "ials.ials"),
    "softmax": ("train", "softmax.softmax"),
    "ease": ("train", "ease.ease"),
    "item_knn": ("train", "item_knn"),
    "pure_svd": ("train", "pure_svd"),
    "next_item": ("train", "next_item.next_item"),
    "popularity": ("train", "popularity"),
    "sequence": ("deep", "sequence"),
    "two_tower": ("deep", "two_tower"),
    "two_tower_rating": ("deep", "two_tower_rating"),
    "rank_net": ("deep", "rank_net"),
    "neural_mf": ("deep", "neural_mf"),
}

# Those whose fit shares its work between the workers of an executor.
DISTRIBUTED: Final[tuple[str, ...]] = (
    *("ials", "svd", "pure_svd", "next_item"),
    *(name for name, (extra, _) in _MODULES.items() if extra == "deep"),
)

# Named settings; docs/benchmarks.md explains the choice.
PRESETS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "best": ("bayesian_mf", ("n_factors=24", "n_samples=80")),
    "best_ranking": ("ials", ("n_factors=1024", "n_epochs=12", "reg=0.006")),
    "popularity_week": ("popularity", ("window_days=7",)),
}


def names() -> list[str]:
    """Return the names of all algorithms."""
    return list(_MODULES)


def get(name: str) -> Algorithm:
    """Return an algorithm.

    Raises:
        UsageError: The name is unknown, or a required package is not installed.
    """
    if name not in _MODULES:
        known = (*_MODULES, *PRESETS)
        raise UsageError(
            f"There is no algorithm {name!r}{did_you_mean(name, known)}; the algorithms are {', '.join(known)}."
        )
    folder, file = _MODULES[name]
    try:
        module = import_module(f"{_FOLDERS[folder]}.{file}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "service":
            raise
        raise UsageError(f"{name} needs the package {error.name}; install recollect[{folder}].") from error
    algorithm: Algorithm = module.ALGORITHMS[name]
    return algorithm


@dataclass(frozen=True)
class ConfiguredAlgorithm:
    """An algorithm with its hyperparameters.

    Attributes:
        name: The name of the algorithm or of a preset.
        config: The hyperparameters, of the class `algorithm.config`.
        label: A name that is unique in a comparison; empty for `name`.
    """

    name: str
    config: Any
    algorithm: Algorithm
    label: str = ""

    @classmethod
    def parse(cls, name: str, assignments: Iterable[str] = ()) -> "ConfiguredAlgorithm":
        """Build it from a name and `name=value` texts, which override a preset's.

        Raises:
            UsageError: There is no such algorithm or setting, or a value is out of bounds.
        """
        algorithm_name, preset = PRESETS.get(name, (name, ()))
        algorithm = get(algorithm_name)
        config = hyperparameters.parse(algorithm.config, (*preset, *assignments))
        return cls(name, config, algorithm)

    @property
    def is_distributed(self) -> bool:
        """Whether its fit shares the work between the workers of an executor."""
        return PRESETS.get(self.name, (self.name, ()))[0] in DISTRIBUTED

    def with_settings_of(self, snapshot: ModelSnapshot) -> "ConfiguredAlgorithm":
        """Return it with the hyperparameters of a model that it fitted, among them those that a fit chose itself."""
        return replace(self, config=hyperparameters.from_json(self.algorithm.config, snapshot.settings))
