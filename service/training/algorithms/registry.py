"""Every algorithm by its name on the command line: one file and one line each.

A module of the table has `ALGORITHM`, an `Algorithm`. It is imported only when it is asked for: compiled kernels are
heavy to import, and a list of names must not cost that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np

from service.errors import UsageError
from service.models.snapshot import ModelSnapshot
from service.training.algorithms import settings
from service.training.interactions import Interactions, Progress

Fit = Callable[[Interactions, Any, np.random.Generator, Progress], ModelSnapshot]


@dataclass(frozen=True)
class Algorithm:
    """A Config and a fit.

    Attributes:
        config: a frozen dataclass whose fields come from `settings.setting`.
        fit: (data, config, rng, progress) -> snapshot; the same data, config and generator give the same bytes. Users
            and items that the data's rows do not name have no bias and no factors in it.
    """

    config: type[Any]
    fit: Fit


_MODULES: Final = {
    "svd": "biased_mf",
}


def names() -> list[str]:
    """Return the names of all algorithms."""
    return list(_MODULES)


def get(name: str) -> Algorithm:
    """Return an algorithm.

    Raises:
        UsageError: there is none of that name, or what it needs is not installed.
    """
    if name not in _MODULES:
        raise UsageError(f"there is no algorithm {name!r}; there is {', '.join(_MODULES)}")
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
    """An algorithm with its settings, ready to be fitted."""

    name: str
    config: Any
    fit: Fit

    @classmethod
    def parse(cls, name: str, assignments: Iterable[str] = ()) -> Candidate:
        """Build a candidate from what a person wrote.

        Args:
            name: the algorithm.
            assignments: `key=value` texts.

        Raises:
            UsageError: there is no such algorithm or setting, or a value is out of range.
        """
        algorithm = get(name)
        return cls(name, settings.parse(algorithm.config, assignments), algorithm.fit)


def parse_list(names_text: Iterable[str]) -> Iterator[Candidate]:
    """Yield a candidate with default settings for each of several names.

    Raises:
        UsageError: there is no such algorithm.
    """
    for name in names_text:
        yield Candidate.parse(name.strip())
