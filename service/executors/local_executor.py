"""An executor on this machine: worker processes, and values in files that they map.

Invariants: a worker holds one task at a time and no state between two. The folder of values goes with the executor,
also if that is killed: its workers remove it then, or the next executor if they were killed, too.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from service.errors import RunError
from service.executors import value_file
from service.executors.executor import MOST_DEATHS, Keep, Ref, Watch, WorkerEvent, WorkerState, kept_nowhere, no_watch
from service.executors.group_run import GroupRun
from service.executors.local_group import GroupCall, run_local_group
from service.executors.machine import this_machine
from service.executors.task_call import TaskFailed, called
from service.executors.value_folder import value_folder
from service.executors.worker_process import death_reason, exit_with_parent, spawn
from service.training.algorithms.kernels import threads
from service.training.interactions import Progress, no_progress

T = TypeVar("T")


@dataclass(frozen=True)
class FileRef(Ref[T]):
    """A value in a file."""

    path: Path


@dataclass(frozen=True)
class _Call:
    """A task on its way to a worker; `results` are the files of its result, or of the parts of its result."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    results: tuple[Path, ...]


@dataclass
class _Worker:
    """A worker process; `task` is the number of the task that it has."""

    name: str
    process: BaseProcess
    connection: Connection
    task: int | None = None


class LocalExecutor:
    """A context of `n_workers` processes, which share the cores of this machine.

    Args:
        n_workers: At least 1.
        folder: Where the folder of values is made.
        watch: Called with each change of a worker.
    """

    def __init__(self, n_workers: int, folder: Path, watch: Watch = no_watch) -> None:
        self._n_workers: Final = n_workers
        self._parent: Final = folder
        self._watch: Final = watch
        self._n_threads: Final = max(1, threads.count() // n_workers)
        self._numbers = itertools.count()
        self._folder = Path()
        self._held: Final = ExitStack()
        self._workers: list[_Worker] = []

    def __repr__(self) -> str:
        return f"<LocalExecutor {len(self._workers)} of {self._n_workers} started, {self._n_threads} threads each>"

    def __enter__(self) -> Self:
        """Make the folder; a process starts with its first task."""
        self._folder = self._held.enter_context(value_folder(self._parent))
        return self

    def __exit__(self, *exception: object) -> None:
        """End the workers, also in the middle of a task, and remove the values."""
        for worker in self._workers:
            worker.process.terminate()
            worker.connection.close()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()
        self._held.close()

    @property
    def n_workers(self) -> int:
        """The number of workers."""
        return self._n_workers

    def put(self, value: T) -> FileRef[T]:
        """Write a value into a file."""
        path = self._new_path()
        value_file.write(path, value)
        return FileRef(path)

    def get(self, ref: Ref[T]) -> T:
        """Map a value."""
        value: T = value_file.read(_path_of(ref))
        return value

    def release(self, refs: Iterable[Ref[Any]]) -> None:
        """Remove values; what is mapped stays until it is let go."""
        for ref in refs:
            _path_of(ref).unlink(missing_ok=True)

    def run(self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = "") -> list[Ref[T]]:
        """Do all tasks; as in `Executor`."""
        refs: list[Ref[T]] = [FileRef(self._new_path()) for _ in tasks]
        for _ in self._done(function, tasks, [(ref,) for ref in refs], stage):
            pass
        return refs

    def run_split(
        self,
        function: Callable[..., tuple[Any, ...]],
        tasks: Sequence[tuple[Any, ...]],
        n_parts: int,
        *,
        stage: str = "",
    ) -> list[tuple[Ref[Any], ...]]:
        """Do all tasks, and return a reference to each part of their results; as in `Executor`."""
        refs = [tuple(FileRef[Any](self._new_path()) for _ in range(n_parts)) for _ in tasks]
        for _ in self._done(function, tasks, refs, stage):
            pass
        return [*refs]

    def completed(
        self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = ""
    ) -> Iterator[tuple[int, T]]:
        """Do all tasks, and yield the results as they come; as in `Executor`."""
        refs: list[Ref[T]] = [FileRef(self._new_path()) for _ in tasks]
        for task in self._done(function, tasks, [(ref,) for ref in refs], stage):
            value = self.get(refs[task])
            self.release([refs[task]])
            yield task, value

    def run_group(
        self,
        function: Callable[..., T],
        args: tuple[Any, ...],
        *,
        stage: str = "",
        kept: bytes | None = None,
        keep: Keep = kept_nowhere,
        keep_interval_s: float | None = None,
        progress: Progress = no_progress,
    ) -> T:
        """Run a function in all members of a group at once; as in `Executor`."""
        call = GroupCall(function, args, _value_of, self._new_path())
        run = GroupRun(stage, kept, keep, keep_interval_s, progress)
        run_local_group(call, run, self._n_workers, self._n_threads, self._folder, self._watch)
        result: FileRef[T] = FileRef(call.result)
        value = self.get(result)
        self.release([result])
        return value

    def _done(
        self,
        function: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        refs: Sequence[tuple[Ref[Any], ...]],
        stage: str,
    ) -> Iterator[int]:
        """Do all tasks; yield the number of each as it is done."""
        waiting = deque(range(len(tasks)))
        deaths: dict[int, int] = {}
        n_done = 0

        def report(worker: _Worker, state: WorkerState) -> None:
            machine, pid = this_machine(), worker.process.pid or 0
            self._watch(WorkerEvent(worker.name, machine, pid, state, stage, worker.task, n_done, len(tasks)))

        def call(task: int) -> _Call:
            return _Call(function, tasks[task], tuple(map(_path_of, refs[task])))

        try:
            while n_done < len(tasks):
                self._hand_out(waiting, call, report)
                by_connection = {worker.connection: worker for worker in self._workers if worker.task is not None}
                for ready in wait(list(by_connection)):
                    worker = by_connection[ready]  # type: ignore[index]  # mypy has `wait` return any waitable
                    task = worker.task
                    assert task is not None  # noqa: S101  # those that have none are not waited for
                    failed: TaskFailed | None = None
                    try:
                        failed = worker.connection.recv()
                    except (EOFError, ConnectionResetError):
                        worker.process.join()
                        deaths[task] = deaths.get(task, 0) + 1
                        report(worker, "died")
                        reason = death_reason(worker.process.exitcode)
                        self._remove(worker)
                        if deaths[task] >= MOST_DEATHS:
                            raise RunError(
                                f"A task of the stage {stage!r} ended {MOST_DEATHS} workers. {reason}"
                            ) from None
                        waiting.appendleft(task)
                        continue
                    if failed is not None:
                        raise failed.error()
                    n_done += 1
                    worker.task = None
                    report(worker, "idle")
                    # Before the result is taken: no worker waits while it is written or sent.
                    self._hand_out(waiting, call, report)
                    yield task
        finally:
            # After an error or an early end, a worker may still run a task whose result is not needed.
            for worker in [worker for worker in self._workers if worker.task is not None]:
                worker.process.kill()
                worker.process.join()
                self._remove(worker)

    def _hand_out(
        self, waiting: deque[int], call: Callable[[int], _Call], report: Callable[[_Worker, WorkerState], None]
    ) -> None:
        """Give tasks to idle workers, and start workers while there are fewer than wanted."""
        idle = [worker for worker in self._workers if worker.task is None]
        while waiting and (idle or len(self._workers) < self._n_workers):
            worker = idle.pop(0) if idle else self._spawn()
            task = waiting.popleft()
            try:
                worker.connection.send(call(task))
            except ConnectionError:  # it died while it was idle
                self._remove(worker)
                waiting.appendleft(task)
                continue
            worker.task = task
            report(worker, "working")

    def _spawn(self) -> _Worker:
        taken = {worker.name for worker in self._workers}
        name = next(name for n in itertools.count(1) if (name := f"worker-{n}") not in taken)
        process, connection = spawn(_run_worker, (self._folder, self._n_threads), f"recollect-{name}")
        worker = _Worker(name, process, connection)
        self._workers.append(worker)
        return worker

    def _remove(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        self._workers.remove(worker)

    def _new_path(self) -> Path:
        return self._folder / f"{next(self._numbers)}.value"


def _path_of(ref: Ref[Any]) -> Path:
    if not isinstance(ref, FileRef):
        raise TypeError("A value of another executor.")
    return ref.path


def _value_of(ref: Ref[Any]) -> Any:
    return value_file.read(_path_of(ref))


def _run_worker(connection: Connection, folder: Path, n_threads: int) -> None:
    watch = exit_with_parent(folder)
    # SciPy brings a BLAS of its own, and a limit holds for what is loaded.
    import scipy.linalg  # noqa: F401

    # The connection breaks when the parent dies; the other thread then cleans up.
    with threads.limit(n_threads), threads.one_blas_thread(), suppress(EOFError, ConnectionError):
        while True:
            connection.send(_answer(connection.recv()))
    watch.join()


def _answer(call: _Call) -> TaskFailed | None:
    """Do a task and write its result; returns why it has none."""
    result = called(call.function, call.args, _value_of)
    if isinstance(result, TaskFailed):
        return result
    try:
        parts = (result,) if len(call.results) == 1 else result
        for path, part in zip(call.results, parts, strict=True):
            value_file.write(path, part)
    except OSError as error:
        folder = call.results[0].parent
        return TaskFailed(RunError, f"A result cannot be written in {folder}: {error.strerror or error}.")
    except Exception as error:  # noqa: BLE001  # such as a result that cannot be pickled
        return TaskFailed.of(error)
    return None
