"""Processes that fit and measure, one fold of one trial at a time.

Invariants: a worker keeps nothing between two tasks, so that any of them may do any task; it ends when its parent does,
however that ends, and removes the parent's folder then. A worker that dies (for want of memory, say) costs its task and
is replaced. Ctrl-C reaches the parent alone.
"""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import numpy as np

from service.errors import RecollectError
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import Candidate
from service.training.data import datasets
from service.training.evaluation import measurement
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.search import shared_dataset


@dataclass(frozen=True)
class Task:
    """One fold of one trial.

    Attributes:
        algorithm: Its name, or a preset's.
        settings: `name=value` texts.
        measure: What to measure.
        protocol: What is relevant, and for how many users lists are made.
        fold: Which split.
        seed: Of the fit.
    """

    algorithm: str
    settings: tuple[str, ...]
    measure: str
    protocol: EvaluationProtocol
    fold: int
    seed: np.random.SeedSequence


@dataclass(frozen=True)
class Measured:
    """What a task came to.

    Attributes:
        value: The measure.
        seconds: For fitting and measuring.
    """

    value: float
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Why a task came to nothing, as one sentence."""

    why: str


Outcome: TypeAlias = Measured | Failed


class Workers:
    """So many processes over one folder of columns; a context.

    Args:
        folder: What `columns.write` wrote.
        n_workers: How many.
        n_threads: How many threads each may use; 0 for all cores.
    """

    def __init__(self, folder: Path, n_workers: int, n_threads: int) -> None:
        self.n_workers: Final = n_workers
        self._folder = folder
        self._n_threads = n_threads
        self._processes: dict[int, tuple[BaseProcess, Connection]] = {}

    def __repr__(self) -> str:
        return f"<Workers {len(self._processes)} of {self.n_workers} started, {self._n_threads} threads each>"

    def __enter__(self) -> Self:
        """Do nothing yet: a process starts with its first task."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them, whatever they are doing."""
        for process, connection in self._processes.values():
            process.terminate()
            connection.close()
        for process, _ in self._processes.values():
            process.join()

    def begin(self, worker: int, task: Task) -> None:
        """Give a worker a task.

        Args:
            worker: Its number, from 0 to n_workers - 1; it has no task.
            task: What to do.
        """
        if worker not in self._processes:
            self._processes[worker] = self._started()
        try:
            self._processes[worker][1].send(task)
        except ConnectionError:  # it died while it had nothing to do
            self._replace(worker)
            self._processes[worker][1].send(task)

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Wait until a task is done; yield the worker and the outcome of each that is."""
        by_connection = {connection: worker for worker, (_, connection) in self._processes.items()}
        for ready in wait(list(by_connection)):
            worker = by_connection[ready]  # type: ignore[index]  # mypy has `wait` return any waitable
            process, connection = self._processes[worker]
            try:
                outcome: Outcome = connection.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                outcome = Failed(_death(process.exitcode))
                self._replace(worker)
            yield worker, outcome

    def _replace(self, worker: int) -> None:
        process, connection = self._processes[worker]
        connection.close()
        process.join()
        self._processes[worker] = self._started()

    def _started(self) -> tuple[BaseProcess, Connection]:
        # A forked child would have the locks of our threads, and a compiler that does not outlive a fork.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._folder, self._n_threads), name="recollect-search", daemon=True
        )
        with _interrupts_blocked():
            process.start()
        theirs.close()
        return process, ours


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let a child be born deaf to Ctrl-C, from its first instruction on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "the process was killed, most likely for want of memory"
    return f"the process ended with exit code {exit_code}"


def _work(connection: Connection, folder: Path, n_threads: int) -> None:
    """Be a worker."""
    ending = threading.Thread(target=_end_with_parent, args=(folder,), daemon=True)
    ending.start()
    data = shared_dataset.SharedDataset(folder)
    is_warm = False
    # The connection breaks when the parent is no more; to tidy up is the other thread's part.
    with threads.limit(n_threads), suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            if not is_warm:
                _warm_up(task)
                is_warm = True
            connection.send(_done(data, task))
    ending.join()


def _warm_up(task: Task) -> None:
    """Measure something tiny, so that compiling, or reading the compiled code, is in no trial's seconds."""
    tiny = datasets.read("demo:8x8x32")
    # What is wrong with these settings, the task itself will say.
    with suppress(Exception):
        candidate = Candidate.parse(task.algorithm, task.settings)
        measurement.fit_and_measure(candidate, tiny, tiny, np.random.default_rng(0), measures=[task.measure])


def _done(data: shared_dataset.SharedDataset, task: Task) -> Outcome:
    try:
        candidate = Candidate.parse(task.algorithm, task.settings)
        train, test = data.split(task.fold)
        started_s = time.perf_counter()
        measured = measurement.fit_and_measure(
            candidate,
            train,
            test,
            np.random.default_rng(task.seed),
            measures=[task.measure],
            relevant_from=task.protocol.relevant_from,
            most_users=task.protocol.most_users,
        )
    except RecollectError as error:
        return Failed(str(error))
    # Some settings exhaust memory or break a solver, in ways that only the solver knows; the search goes on.
    except Exception as error:  # noqa: BLE001
        return Failed(f"{type(error).__name__}: {error}")
    value = measured[task.measure]
    if not np.isfinite(value):
        return Failed(f"{task.measure} is {value}")
    return Measured(value, time.perf_counter() - started_s)


def _end_with_parent(folder: Path) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
