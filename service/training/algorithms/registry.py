"""Every algorithm by its name on the command line: one file and one line each.

A module of the table has `ALGORITHM`, an `Algorithm`. It is imported only when it is asked for: compiled kernels are
heavy to import, and a list of names must not cost that.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import UsageError, did_you_mean
from service.models.snapshot import ModelSnapshot
from service.training import predictions
from service.training.algorithms import hyperparameters
from service.training.interactions import Interactions, Progress

Fit = Callable[[Interactions, Any, np.random.Generator, Progress], ModelSnapshot]
Predict = Callable[[ModelSnapshot, NDArray[np.int32], NDArray[np.int32]], NDArray[np.float64]]
Listing = Callable[[NDArray[np.int64], int], NDArray[np.int32]]
"""(user_rows, n) -> lists of n items for those users: int32 (m, n), -1 in the places that a list is short of."""
FitMeasured = Callable[
    [Interactions, NDArray[np.int64], Any, np.random.Generator, Progress], tuple[ModelSnapshot, Listing]
]
Kind: TypeAlias = Literal["rating", "ranking"]


@dataclass(frozen=True)
class Algorithm:
    """A Config and a fit.

    Attributes:
        config: A frozen dataclass whose fields come from `settings.setting`.
        fit: (data, config, rng, progress) -> snapshot; the same data, config and generator give the same bytes, on any
            number of threads. Users and items that the data's rows do not name have no bias, no factors and no
            neighbours in it.
        kind: "rating" if scores are predicted ratings; "ranking" if only their order means something.
        predict: (snapshot, user_rows, item_rows) -> predicted ratings, float64 (n,), on the rating scale. By default
            the served score; where that keeps only the top neighbours, the exact predictor of the definition.
        fit_measured: (data, hidden, config, rng, progress) -> the snapshot of all data, and the lists that it would
            give if the hidden positions, int64 (m,), of the user in question had not been learnt; of an algorithm that
            can tell without a second fit. None of all others.
    """

    config: type[Any]
    fit: Fit
    kind: Kind = "rating"
    predict: Predict = predictions.predict
    fit_measured: FitMeasured | None = None


_MODULES: Final = {
    "svd": "biased_mf",
    "svdpp": "svdpp",
    "nmf": "nmf",
    "bayesian_mf": "bayesian_mf",
    "slope_one": "slope_one",
    "knn_basic": "knn_basic",
    "knn_means": "knn_means",
    "knn_baseline": "knn_baseline",
    "baseline": "baseline",
    "ials": "ials",
    "softmax": "softmax",
    "ease": "ease",
    "item_knn": "item_knn",
    "popularity": "popularity",
}

# Settings worth a name of their own; docs/benchmarks.md says how each was chosen.
PRESETS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "best": ("bayesian_mf", ("n_factors=24", "n_samples=80")),
    "best_ranking": ("ials", ("n_factors=1024", "n_epochs=12", "reg=0.006")),
}


def names() -> list[str]:
    """Return the names of all algorithms."""
    return list(_MODULES)


def get(name: str) -> Algorithm:
    """Return an algorithm.

    Raises:
        UsageError: There is none of that name, or what it needs is not installed.
    """
    if name not in _MODULES:
        known = (*_MODULES, *PRESETS)
        raise UsageError(f"there is no algorithm {name!r}{did_you_mean(name, known)}; there is {', '.join(known)}")
    try:
        module = import_module(f"service.training.algorithms.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "service":
            raise
        raise UsageError(f"{name} needs the package {error.name}: install recollect[train]") from error
    algorithm: Algorithm = module.ALGORITHM
    return algorithm


@dataclass(frozen=True)
class Candidate:
    """An algorithm with its settings, ready to be fitted.

    Attributes:
        name: As it was asked for: an algorithm's, or a preset's.
        config: The settings.
        fit: As `Algorithm` has it.
        kind: likewise.
        predict: likewise.
        label: What to call it beside others; empty for its name, and what tells it from others of that name.
        fit_measured: As `Algorithm` has it.
    """

    name: str
    config: Any
    fit: Fit
    kind: Kind = "rating"
    predict: Predict = predictions.predict
    label: str = ""
    fit_measured: FitMeasured | None = None

    @classmethod
    def parse(cls, name: str, assignments: Iterable[str] = ()) -> "Candidate":
        """Build a candidate from what a person wrote.

        Args:
            name: The algorithm, or a preset.
            assignments: `key=value` texts; they count more than a preset's.

        Raises:
            UsageError: There is no such algorithm or setting, or a value is out of range.
        """
        algorithm_name, preset = PRESETS.get(name, (name, ()))
        algorithm = get(algorithm_name)
        config = hyperparameters.parse(algorithm.config, (*preset, *assignments))
        return cls(name, config, algorithm.fit, algorithm.kind, algorithm.predict, fit_measured=algorithm.fit_measured)


def parse_list(names_text: Iterable[str]) -> Iterator[Candidate]:
    """Yield a candidate with default settings for each of several names.

    Raises:
        UsageError: There is no such algorithm.
    """
    for name in names_text:
        yield Candidate.parse(name.strip())
