"""The program of a peer's process: reads one fold, then fits and asks models of one public library, one after another.

The invariant: what is measured is the library's own work. Importing it and turning the fold into its kind of data are
timed apart, and so is nothing of ours: files are written after the clocks have stopped.

It runs in the interpreter of the peers' environment, which has none of our packages, so it imports numpy, the standard
library and its own neighbours here, and nothing else. It is told one request per line on standard input and answers
each with a line of JSON.
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
    """What a library is given.

    Attributes:
        users: Int64 (n,), rows of the training ratings, in random order as scikit-surprise's own folds have them.
        items: Int64 (n,).
        ratings: Float64 (n,).
        test_users: Int64 (m,), the pairs whose ratings are to be predicted.
        test_items: Int64 (m,).
        listed_users: Int64 (l,), whom to rank for; each has a training rating.
        n_users: Rows of users, whether they have ratings or not.
        n_items: likewise.
        rating_min: The least rating of the whole set.
        rating_max: The largest one.
        threads: How many the library may use.
        length: Items to a list.
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
        """Write it as a .npz file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: str) -> "Fold":
        """Undo `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})


class Model(Protocol):
    """A model of a peer; one that cannot predict ratings or cannot rank lacks the method and is not asked to."""

    def fit(self) -> None:
        """Learn from the fold's training ratings."""

    def predict(self) -> NDArray[np.float64]:
        """Return a rating for each test pair, float64 (m,)."""

    def rank(self) -> NDArray[np.int64]:
        """Return the lists of the listed users without their training items, int64 (l, length); -1 where one ends."""


class Library(Protocol):
    """A peer that holds a fold in the form it wants."""

    version: str

    def model(self, name: str, seed: int, settings: dict[str, Any]) -> Model:
        """Make a model with the library's defaults but for some settings, by the library's names for them."""


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Do something; return its result, its seconds, and its seconds of processor time in all threads."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - started, time.process_time() - cpu_started


def main(library_name: str, fold_path: str) -> None:
    """Serve requests until standard input ends.

    Args:
        library_name: "surprise", "implicit" or "lenskit".
        fold_path: What `Fold.save` wrote.
    """
    # Libraries print as they like; only this may speak on standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    module, import_s, _ = timed(lambda: importlib.import_module(f"ops.benchmarks.peer_{library_name}"))
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
