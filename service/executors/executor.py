"""What an executor is: it runs tasks on worker processes, of one machine or of many.

A task is a call of a function with values that all workers can read. Tasks keep no state, so any worker may do any
task, and one whose worker dies is done again by another. So a result does not depend on which workers live.

A fit finds the executor of its command with `executor_in_use`; without one it uses the threads of its own process.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from service.executors.machine import Machine
from service.training.interactions import Progress, no_progress

T = TypeVar("T")

MOST_DEATHS: Final = 3
"""A task that has ended so many workers is not tried again."""


class Ref(Generic[T]):
    """A value of an executor that all of its workers can read; small, whatever the size of the value."""


WorkerState: TypeAlias = Literal["idle", "working", "died", "left"]


@dataclass(frozen=True)
class WorkerEvent:
    """What has become of a worker.

    Attributes:
        worker: Its name, such as "worker-1"; the process that replaces a dead one has the same.
        machine: Its machine.
        pid: Its process there.
        state: "died" if it ended in the middle of its task, "left" if it was not needed any more.
        stage: The stage of the work, such as "fit".
        task: The number of its task within the stage, from 0; None while it has none.
        n_done: The tasks of the stage that are done.
        n_tasks: The tasks of the stage.
    """

    worker: str
    machine: Machine
    pid: int
    state: WorkerState
    stage: str
    task: int | None
    n_done: int
    n_tasks: int


Watch = Callable[[WorkerEvent], None]


def no_watch(event: WorkerEvent) -> None:
    """Ignore an event."""


Keep = Callable[[bytes], None]
"""Keeps bytes in place of those before."""


def kept_nowhere(content: bytes) -> None:
    """Keep nothing."""


class Executor(Protocol):
    """Runs tasks on worker processes.

    The function of a task is at the top level of a module. A `Ref` among its arguments, or in a list or tuple of them,
    arrives as its value; arrays in it are shared between tasks, and must not be written.
    """

    @property
    def n_workers(self) -> int:
        """The number of workers that run at once."""

    def put(self, value: T) -> Ref[T]:
        """Make a value readable by all workers."""

    def run(self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = "") -> list[Ref[T]]:
        """Call `function(*task)` for each task, and return the results in the order of tasks when all are done.

        Raises:
            RecollectError: That of a task.
            RunError: A task failed in another way, or ended `MOST_DEATHS` workers.
        """

    def run_split(
        self,
        function: Callable[..., tuple[Any, ...]],
        tasks: Sequence[tuple[Any, ...]],
        n_parts: int,
        *,
        stage: str = "",
    ) -> list[tuple[Ref[Any], ...]]:
        """Run tasks whose results have several parts, so that a later task can be given one part without the others.

        Args:
            function: Returns a tuple of `n_parts` values.
            n_parts: At least 2.

        Raises:
            RecollectError: That of a task.
            RunError: A task failed in another way, or ended `MOST_DEATHS` workers.
        """

    def completed(
        self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = ""
    ) -> Iterator[tuple[int, T]]:
        """Call `function(*task)` for each task, and yield (number of the task, result) as they are done.

        Raises:
            RecollectError: That of a task.
            RunError: A task failed in another way, or ended `MOST_DEATHS` workers.
        """

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
        """Call `function(member, *args)` in `n_workers` processes at once, which reach each other, see `Member`.

        If a member dies, all are ended and started again. The first member then has what it kept last, so that the
        group goes on from there.

        Args:
            function: At the top level of a module.
            args: As those of a task.
            stage: The stage of the work.
            kept: What the first member has at the first start, such as the checkpoint of an earlier command.
            keep: Called with what the first member keeps.
            keep_interval_s: How often it keeps something; 0 for at any time, None for never.
            progress: Called with the progress of the first member.

        Returns:
            What the function returns in the first member.

        Raises:
            RecollectError: That of a member.
            RunError: A member failed in another way, or `MOST_DEATHS` times one died without anything new to keep.
        """

    def get(self, ref: Ref[T]) -> T:
        """Return a value; its arrays must not be written."""

    def release(self, refs: Iterable[Ref[Any]]) -> None:
        """Give up values; no later task may name them."""


_executor: ContextVar[Executor | None] = ContextVar("recollect_executor", default=None)


def executor_in_use() -> Executor | None:
    """Return the executor of the command; None if all work is done in this process, as within a task."""
    return _executor.get()


@contextmanager
def using(executor: Executor | None) -> Iterator[None]:
    """Let the work inside use an executor; None for this process alone."""
    token = _executor.set(executor)
    try:
        yield
    finally:
        _executor.reset(token)
