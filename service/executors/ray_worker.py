"""What runs in the worker processes of Ray: a task, and the board on which tasks say where they run."""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from threadpoolctl import threadpool_limits

from service.errors import RunError
from service.executors.code_version import own_version, unlike
from service.executors.executor import Ref
from service.executors.machine import this_machine
from service.executors.ray_values import Packed, pack, unpack
from service.executors.task_call import TaskFailed, called
from service.executors.worker_book import Place
from service.training.algorithms.kernels import threads

_REPORT_TIMEOUT_S: Final = 5.0
# Not empty once this process has reported.
_reported: list[bool] = []


@dataclass(frozen=True)
class RayRef(Ref[Any]):
    """A value in Ray's object store, by its number in one executor."""

    number: int


class Board:
    """Collects which worker has begun which task, for the executor that asks now and then."""

    def __init__(self) -> None:
        self._started: list[tuple[int, int, Place]] = []

    def started(self, run: int, task: int, place: Place) -> None:
        """Note that a worker has begun a task of a run."""
        self._started.append((run, task, place))

    def take(self, run: int) -> list[tuple[int, Place]]:
        """Return the tasks of a run that were begun since the last call, with their workers."""
        taken = [(task, place) for of_run, task, place in self._started if of_run == run]
        self._started.clear()
        return taken


@dataclass(frozen=True)
class Notice:
    """How a task says where it runs.

    Attributes:
        board: The handle of a `Board`.
        run: The number of the run of tasks.
        task: The number of the task in it.
    """

    board: Any
    run: int
    task: int


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    Attributes:
        failed: Why it has no result, if so.
        place: Where it was done.
    """

    failed: TaskFailed | None
    place: Place


def do_task(
    version: str,
    function: Callable[..., Any],
    args: Packed,
    n_parts: int,
    notice: Notice | None,
    numbers: Sequence[int],
    *values: Packed,
) -> tuple[Ended | Packed | None, ...]:
    """Call a function in a worker.

    Args:
        version: The text of `code_version` of the command, which has to be that of this process.
        function: The function of the task.
        args: Its arguments, with a `RayRef` for each value.
        n_parts: The parts of its result; with 1 the result is one value.
        notice: Where to report, if anything watches.
        numbers: The numbers of the values.
        values: The values; Ray has brought them to this machine before it starts the task.

    Returns:
        How the task ended; and the parts of its result.
    """
    nothing = (None,) * n_parts
    here = own_place()
    if (refused := other_code(version)) is not None:
        return Ended(refused, here), *nothing
    limit_linear_algebra()
    if notice is not None:
        _report(notice, here)
    with threads.limit(1):
        result = called(function, unpack(args), value_by_number(numbers, values))
    if isinstance(result, TaskFailed):
        return Ended(result, here), *nothing
    try:
        parts = (result,) if n_parts == 1 else result
        return Ended(None, here), *(pack(part) for _, part in zip(nothing, parts, strict=True))
    except Exception as error:  # noqa: BLE001  # such as a result that cannot be pickled
        return Ended(TaskFailed.of(error), here), *nothing


def own_place() -> Place:
    """Return where this process of a cluster runs."""
    import ray

    return Place(this_machine(ray.util.get_node_ip_address()), os.getpid())


def other_code(version: str) -> TaskFailed | None:
    """Return why this process does nothing for a command of a version: it has other code. None if it has the same.

    A machine whose code is replaced says what it had when it joined, but its next worker process loads the new code.
    """
    if version == own_version():
        return None
    return TaskFailed(RunError, unlike(socket.gethostname(), own_version(), version))


def _report(notice: Notice, here: Place) -> None:
    """Say where the task runs, without waiting for an answer but to the first report of this process."""
    import ray

    # The way to the board is found with the first report. A process that is killed meanwhile would be missed.
    sent = notice.board.started.remote(notice.run, notice.task, here)
    if not _reported:
        ray.wait([sent], timeout=_REPORT_TIMEOUT_S)
        _reported.append(True)


def value_by_number(numbers: Sequence[int], values: Sequence[Packed]) -> Callable[[Ref[Any]], Any]:
    """Return the function from a reference to its value."""
    by_number = dict(zip(numbers, values, strict=True))

    def value_of(ref: Ref[Any]) -> Any:
        if not isinstance(ref, RayRef):
            raise TypeError("A value of another executor.")
        return unpack(by_number[ref.number])

    return value_of


@cache
def limit_linear_algebra() -> None:
    """Run it on one thread for as long as this process lives; Ray gives a worker one core."""
    # SciPy brings a BLAS of its own, and a limit holds for what is loaded.
    import scipy.linalg  # noqa: F401

    threadpool_limits(limits=1, user_api="blas")
