"""The program of a peer's process: it loads one fold, then fits and runs models of one public library.

Invariant: only the library's work is timed. Importing it and converting the fold are timed separately; files are
written after the clocks have stopped.

It runs in the interpreter of the peers' environment, without our packages, so it imports only numpy, the standard
library and the modules beside it. It reads one JSON request per line and answers each with a line of JSON.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Fold:
    """The training ratings and the task of a library.

    Attributes:
        users: Int64 (n,), rows of the training ratings, in random order like the folds of scikit-surprise.
        items: Int64 (n,).
        ratings: Float64 (n,).
        test_users: Int64 (m,), users of the pairs to predict.
        test_items: Int64 (m,), their items.
        listed_users: Int64 (l,), the users to rank for; each has a training rating.
        n_users: The number of user rows, with or without ratings.
        n_items: The number of item rows, likewise.
        rating_min: The least rating of the whole set.
        rating_max: The largest rating of the whole set.
        threads: The threads of the library.
        length: Items per list.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float64]
    test_users: NDArray[np.int64]
    test_items: NDArray[np.int64]
    listed_users: NDArray[np.int64]
    n_users: int
    n_items: int
    rating_min: float
    rating_max: float
    threads: int
    length: int

    def save(self, path: str) -> None:
        """Write a .npz file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: str) -> "Fold":
        """Read a file of `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})


class Model(Protocol):
    """A model of a peer; one that cannot predict or cannot rank lacks that method."""

    def fit(self) -> None:
        """Learn from the training ratings."""

    def predict(self) -> NDArray[np.float64]:
        """Return a rating for each test pair, float64 (m,)."""

    def rank(self) -> NDArray[np.int64]:
        """Return the lists of the listed users without their training items, int64 (l, length); -1 where one ends."""


class Library(Protocol):
    """A library with the fold in its data structures."""

    version: str

    def model(self, name: str, seed: int, settings: dict[str, Any]) -> Model:
        """Return a model with the library's defaults except for these settings."""


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result of some work, its seconds, and its seconds of processor time in all threads."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - started, time.process_time() - cpu_started


def main(library_name: str, fold_path: str) -> None:
    """Answer requests until standard input ends, with a library and a file of `Fold.save`."""
    # Libraries print on standard output, so it is redirected to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    module, import_s, _ = timed(lambda: importlib.import_module(f"ops.benchmarks.peers.peer_{library_name}"))
    fold = Fold.load(fold_path)
    library, prepare_s, _ = timed(lambda: module.start(fold))
    answer(version=library.version, import_s=import_s, prepare_s=prepare_s)
    for line in sys.stdin:
        request = json.loads(line)
        model = library.model(request["model"], request["seed"], request["settings"])
        _, fit_s, fit_cpu_s = timed(model.fit)
        result, answer_s, answer_cpu_s = timed(getattr(model, request["ask"]))
        np.save(request["path"], result)
        answer(fit_s=fit_s, fit_cpu_s=fit_cpu_s, answer_s=answer_s, answer_cpu_s=answer_cpu_s)
