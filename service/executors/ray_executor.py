"""An executor on a cluster of Ray: its tasks are tasks of Ray, its values are objects of Ray's object store.

Invariants: what this process has put stays on this machine, and what is computed from it is computed again by Ray if it
is lost with another machine, until it is released. So no result depends on the machines but this one and the head.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from service.errors import RunError
from service.executors.code_version import own_version
from service.executors.executor import MOST_DEATHS, Keep, Ref, Watch, kept_nowhere, no_watch
from service.executors.group_run import GroupRun
from service.executors.ray_connection import (
    VERSION_LABEL,
    connected,
    disconnect,
    fetched,
    on_this_machine,
    usable_machines,
    workers_of,
)
from service.executors.ray_group import RayCall, run_ray_group
from service.executors.ray_values import pack, unpack
from service.executors.ray_worker import Board, Ended, Notice, RayRef, do_task
from service.executors.worker_book import WorkerBook
from service.training.interactions import Progress, no_progress

T = TypeVar("T")

_POLL_EVERY_S: Final = 0.5
# How often to look whether machines have joined or left.
_COUNT_EVERY_S: Final = 5.0
# Enough that no worker waits for its next task, and not so many that results pile up which are not wanted yet.
_TASKS_PER_WORKER: Final = 2


@dataclass(frozen=True)
class _Object:
    """A value.

    Attributes:
        ref: Ray's reference.
        needs: References of the values put by this process from which it was computed: while they are held, Ray can
            compute it again.
    """

    ref: Any
    needs: frozenset[Any]


class RayExecutor:
    """A context in which this process drives a cluster that `recollect cluster` has made, from a machine of it.

    Args:
        address: HOST:PORT of the head.
        own_address: The address of this machine in the cluster.
        watch: Called with each change of a worker.
    """

    def __init__(self, address: str, own_address: str, watch: Watch = no_watch) -> None:
        self._address: Final = address
        self._own_address: Final = own_address
        self._watch: Final = watch
        self._book: Final = WorkerBook(watch)
        self._numbers = itertools.count(1)
        self._runs = itertools.count(1)
        self._objects: dict[int, _Object] = {}
        self._n_workers = 0
        self._n_workers_now = 0
        self._count_at_s = 0.0
        self._board: Any = None

    def __repr__(self) -> str:
        return f"<RayExecutor {self._address}, {self._n_workers} workers, {len(self._objects)} values>"

    def __enter__(self) -> Self:
        """Connect to the cluster.

        Raises:
            RunError: The head does not answer or refuses, this machine is not of the cluster, or another machine runs
                other code.
        """
        ray = connected(self._address, self._own_address)
        try:
            self._n_workers = workers_of(ray)
            if self._watch is not no_watch:
                self._board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=on_this_machine(ray)).remote()
        except BaseException:
            disconnect(ray)
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Give up what is under way and all values, and leave the cluster as it was."""
        import ray

        self._objects.clear()
        self._book.left()
        disconnect(ray)

    @property
    def n_workers(self) -> int:
        """The workers that the cluster had when this process connected, and so the size of its groups."""
        return self._n_workers

    def put(self, value: T) -> Ref[T]:
        """Put a value into the object store of this machine; others fetch it when they need it."""
        import ray

        ref = ray.put(pack(value))
        return self._added(_Object(ref, frozenset([ref])))

    def get(self, ref: Ref[T]) -> T:
        """Return a value, fetched if it is on another machine; computed again if that was lost."""
        value: T = unpack(fetched(self._object(ref).ref))
        return value

    def release(self, refs: Iterable[Ref[Any]]) -> None:
        """Give up values."""
        for ref in refs:
            if isinstance(ref, RayRef):
                self._objects.pop(ref.number, None)

    def run(self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = "") -> list[Ref[T]]:
        """Do all tasks; as in `Executor`."""
        return [ref for (ref,) in self.run_split(function, tasks, 1, stage=stage)]

    def run_split(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], n_parts: int, *, stage: str = ""
    ) -> list[tuple[Ref[Any], ...]]:
        """Do all tasks, and return a reference to each part of their results; as in `Executor`."""
        results = dict(self._done(function, tasks, n_parts, stage))
        return [tuple(map(self._added, results[number])) for number in range(len(tasks))]

    def completed(
        self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = ""
    ) -> Iterator[tuple[int, T]]:
        """Do all tasks, and yield the results as they come; as in `Executor`."""
        for number, (value,) in self._done(function, tasks, 1, stage):
            yield number, unpack(fetched(value.ref))

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
        call = RayCall(function, pack(args), {ref.number: self._object(ref).ref for ref in _refs_in(args)})
        run = GroupRun(stage, kept, keep, keep_interval_s, progress)
        result: T = run_ray_group(call, run, self._n_workers, self._watch)
        return result

    def _done(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], n_parts: int, stage: str
    ) -> Iterator[tuple[int, Sequence[_Object]]]:
        """Do all tasks; yield the number of each as it is done, and the parts of its result.

        A task is asked for when it is due, because `tasks` may make it then.
        """
        import ray

        run = next(self._runs)
        self._book.begin(stage, len(tasks))
        waiting = deque(range(len(tasks)))
        started: dict[Any, int] = {}
        results: dict[int, Sequence[_Object]] = {}
        do = ray.remote(do_task).options(
            num_cpus=1,
            num_returns=1 + n_parts,
            max_retries=MOST_DEATHS - 1,
            label_selector={VERSION_LABEL: own_version()},
        )
        try:
            while waiting or started:
                n_begun = _TASKS_PER_WORKER * self._workers_now(ray)
                while waiting and len(started) < n_begun:
                    number = waiting.popleft()
                    task = tasks[number]
                    notice = None if self._board is None else Notice(self._board, run, number)
                    needed = {ref.number: self._object(ref) for ref in _refs_in(task)}
                    # As arguments of their own, so that Ray brings them to a machine before it starts the task there.
                    values = [each.ref for each in needed.values()]
                    failed, *parts = do.remote(
                        *(own_version(), function, pack(task), n_parts, notice, list(needed)), *values
                    )
                    needs = frozenset[Any]().union(*(each.needs for each in needed.values()))
                    results[number] = [_Object(part, needs) for part in parts]
                    started[failed] = number
                ready, _ = ray.wait(list(started), num_returns=1, timeout=_POLL_EVERY_S)
                self._read_board(run)
                for failed in ready:
                    number = started.pop(failed)
                    try:
                        end: Ended = fetched(failed)
                    except RunError:
                        self._book.died(number)
                        raise
                    if end.failed is not None:
                        raise end.failed.error()
                    self._book.done(number, end.place)
                    yield number, results.pop(number)
        finally:
            for failed in started:
                ray.cancel(failed, force=True)

    def _workers_now(self, ray: Any) -> int:
        """Return the workers that the cluster has, or had a moment ago; 1 if it has none now, because one may join."""
        if time.monotonic() >= self._count_at_s:
            self._n_workers_now = sum(n_cores for _, n_cores in usable_machines(ray))
            self._count_at_s = time.monotonic() + _COUNT_EVERY_S
        return max(1, self._n_workers_now)

    def _read_board(self, run: int) -> None:
        if self._board is not None:
            for number, place in fetched(self._board.take.remote(run)):
                self._book.started(number, place)

    def _object(self, ref: Ref[Any]) -> _Object:
        if not isinstance(ref, RayRef):
            raise TypeError("A value of another executor.")
        return self._objects[ref.number]

    def _added(self, value: _Object) -> Ref[Any]:
        number = next(self._numbers)
        self._objects[number] = value
        return RayRef(number)


def _refs_in(argument: Any) -> Iterator[RayRef]:
    """Yield the references in an argument, also in lists and tuples; each once for each time."""
    if isinstance(argument, RayRef):
        yield argument
    elif type(argument) in {list, tuple}:
        for part in argument:
            yield from _refs_in(part)
