"""Worker processes that fit and measure, one fold of one trial at a time.

Invariants: a worker keeps no state between two tasks, so that any worker may do any task. It exits when its parent
dies, however that happens, and then removes the parent's folder. A worker that dies (out of memory, for example) fails
its task and is replaced. Ctrl-C reaches the parent alone.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Self, TypeAlias

import numpy as np

from service.errors import RecollectError
from service.executors.worker_process import death_reason, exit_with_parent, spawn
from service.training.algorithms.kernels import threads
from service.training.algorithms.registry import ConfiguredAlgorithm
from service.training.evaluation import measurement
from service.training.evaluation.evaluation_protocol import EvaluationProtocol
from service.training.evaluation.kernel_compilation import compile_kernels
from service.training.search.shared_dataset import SharedDataset


@dataclass(frozen=True)
class FoldTask:
    """One fold of one trial."""

    algorithm: str  # its name, or a preset's
    settings: tuple[str, ...]  # `name=value` texts
    measure: str
    protocol: EvaluationProtocol  # which items are relevant, and for how many users lists are made
    fold: int  # the index of the split
    seed: np.random.SeedSequence  # of the fit


@dataclass(frozen=True)
class FoldMeasured:
    """The measure of a fold, and the seconds for fitting and measuring."""

    value: float
    seconds: float


@dataclass(frozen=True)
class FoldFailed:
    """Why a fold has no measure, as one sentence."""

    why: str


FoldResult: TypeAlias = FoldMeasured | FoldFailed


class Workers:
    """A context of worker processes, of `n_threads` each (0 for all cores), over a folder of `shared_dataset.write`."""

    def __init__(self, folder: Path, n_workers: int, n_threads: int) -> None:
        self.n_workers: Final = n_workers
        self._folder = folder
        self._n_threads = n_threads
        self._processes: dict[int, tuple[BaseProcess, Connection]] = {}

    def __repr__(self) -> str:
        return f"<Workers {len(self._processes)} of {self.n_workers} started, {self._n_threads} threads each>"

    def __enter__(self) -> Self:
        """Start nothing yet: a process starts with its first task."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Terminate them, also in the middle of a task."""
        for process, connection in self._processes.values():
            process.terminate()
            connection.close()
        for process, _ in self._processes.values():
            process.join()

    def start(self, worker: int, task: FoldTask) -> None:
        """Give a task to an idle worker, numbered from 0 to n_workers - 1."""
        if worker not in self._processes:
            self._processes[worker] = self._spawn()
        try:
            self._processes[worker][1].send(task)
        except ConnectionError:  # it died while it was idle
            self._replace(worker)
            self._processes[worker][1].send(task)

    def results(self) -> Iterator[tuple[int, FoldResult]]:
        """Wait until a task is done; yield (worker, result) of each that is."""
        by_connection = {connection: worker for worker, (_, connection) in self._processes.items()}
        for ready in wait(list(by_connection)):
            worker = by_connection[ready]  # type: ignore[index]  # mypy has `wait` return any waitable
            process, connection = self._processes[worker]
            try:
                result: FoldResult = connection.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                result = FoldFailed(death_reason(process.exitcode))
                self._replace(worker)
            yield worker, result

    def _replace(self, worker: int) -> None:
        process, connection = self._processes[worker]
        connection.close()
        process.join()
        self._processes[worker] = self._spawn()

    def _spawn(self) -> tuple[BaseProcess, Connection]:
        return spawn(_run_worker, (self._folder, self._n_threads), "recollect-search")


def _run_worker(connection: Connection, folder: Path, n_threads: int) -> None:
    watch = exit_with_parent(folder)
    data = SharedDataset(folder)
    is_compiled = False
    # The connection breaks when the parent dies; the other thread then cleans up.
    with threads.limit(n_threads), suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            if not is_compiled:
                # Before the first task, so that no trial's seconds include it. An error in the settings fails the task.
                with suppress(Exception):
                    compile_kernels(ConfiguredAlgorithm.parse(task.algorithm, task.settings), data.data)
                is_compiled = True
            connection.send(_measure_fold(data, task))
    watch.join()


def _measure_fold(data: SharedDataset, task: FoldTask) -> FoldResult:
    try:
        candidate = ConfiguredAlgorithm.parse(task.algorithm, task.settings)
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
        return FoldFailed(str(error))
    # Some values exhaust memory or break a solver in its own way; the search continues.
    except Exception as error:  # noqa: BLE001
        return FoldFailed(f"{type(error).__name__}: {error}")
    value = measured[task.measure]
    if not np.isfinite(value):
        return FoldFailed(f"{task.measure} is {value}.")
    return FoldMeasured(value, time.perf_counter() - started_s)
