"""A group of processes of this machine that run one function together, see `Executor.run_group`."""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Any, Final

from service.errors import RunError
from service.executors import value_file
from service.executors.executor import Watch, WorkerEvent, WorkerState
from service.executors.group_run import GroupRun
from service.executors.machine import this_machine
from service.executors.member import Kept, Member, Progressed
from service.executors.task_call import TaskFailed, called
from service.executors.worker_process import death_reason, exit_with_parent, spawn
from service.training.algorithms.kernels import threads

_HOST: Final = "127.0.0.1"
# How long the death of a member may come after the complaints of the others.
_GRACE_S: Final = 10.0


@dataclass(frozen=True)
class GroupCall:
    """What the members of a group run.

    Attributes:
        function: Called with the member and the arguments.
        args: References are resolved by each member.
        value_of: Resolves one.
        result: Where the first member writes what the function returns.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    value_of: Callable[[Any], Any]
    result: Path


@dataclass(frozen=True)
class _Ended:
    """A member has done its part, or failed."""

    failed: TaskFailed | None


@dataclass
class _Process:
    """A member's process; it has ended its part once `ended` is set."""

    rank: int
    process: BaseProcess
    connection: Connection
    ended: bool = False


class LocalGroup:
    """One start of a group.

    Args:
        call: What the members run.
        run: What the command knows of the group.
        size: The number of members.
        n_threads: The threads of each.
        folder: Removed by the members if this process dies.
        watch: Called with each change of a member.
    """

    def __init__(self, call: GroupCall, run: GroupRun, size: int, n_threads: int, folder: Path, watch: Watch) -> None:
        self._call: Final = call
        self._run: Final = run
        self._size: Final = size
        self._n_threads: Final = n_threads
        self._folder: Final = folder
        self._watch: Final = watch
        self._members: Final[list[_Process]] = []

    def start(self) -> None:
        """Start the processes."""
        # The socket is open before the members start, so that no other program takes its port.
        with socket.create_server((_HOST, 0)) as listener:
            port = listener.getsockname()[1]
            for rank in range(self._size):
                member = Member(
                    rank, self._size, _HOST, port, self._run.attempt, keep_interval_s=self._run.keep_interval_s
                )
                of_first = None if rank else listener
                process, connection = spawn(
                    _run_member,
                    (member, self._call, of_first, self._n_threads, self._folder),
                    f"recollect-member-{rank + 1}",
                )
                self._members.append(_Process(rank, process, connection))
                self._report(self._members[-1], "working")
        with suppress(ConnectionError):  # if it died already, `wait` says so
            self._members[0].connection.send(self._run.kept)

    def wait(self) -> str | None:
        """Wait until the first member is done; returns why a member was lost, or None.

        Raises:
            RecollectError: That of a member.
        """
        lost: str | None = None
        while not self._members[0].ended:
            waiting = {member.connection: member for member in self._members if not member.ended}
            ready = wait(list(waiting), None if lost is None else _GRACE_S)
            if lost is not None and not ready:
                return lost
            for each in ready:
                member = waiting[each]  # type: ignore[index]  # mypy has `wait` return any waitable
                try:
                    message = member.connection.recv()
                except (EOFError, ConnectionResetError):
                    self._take_what_was_sent()
                    member.process.join()
                    self._report(member, "died")
                    return death_reason(member.process.exitcode)
                if not isinstance(message, _Ended):
                    self._run.take(message)
                    continue
                member.ended = True
                if message.failed is None:
                    self._report(member, "left")
                elif (error := self._run.error_of(message.failed)) is not None:
                    raise error
                else:
                    lost = message.failed.why
        return lost

    def _take_what_was_sent(self) -> None:
        """Take the messages that the first member has sent before another one died, or the next start misses them."""
        first = self._members[0].connection
        with suppress(EOFError, ConnectionResetError):
            while first.poll():
                if not isinstance(message := first.recv(), _Ended):
                    self._run.take(message)

    def end(self) -> None:
        """End all processes."""
        for member in self._members:
            member.process.kill()
            member.process.join()
            member.connection.close()

    def _report(self, member: _Process, state: WorkerState) -> None:
        name, pid = f"member-{member.rank + 1}", member.process.pid or 0
        n_done = sum(each.ended for each in self._members)
        task = None if state == "left" else member.rank
        self._watch(WorkerEvent(name, this_machine(), pid, state, self._run.stage, task, n_done, len(self._members)))


def run_local_group(call: GroupCall, run: GroupRun, size: int, n_threads: int, folder: Path, watch: Watch) -> None:
    """Start a group until it ends without losing a member; the arguments are those of `LocalGroup`.

    Raises:
        RecollectError: That of a member.
        RunError: Members are lost again and again.
    """
    while True:
        group = LocalGroup(call, run, size, n_threads, folder, watch)
        try:
            group.start()
            lost = group.wait()
        finally:
            group.end()
        if lost is None:
            return
        run.lost(lost)


def _run_member(
    connection: Connection,
    member: Member,
    call: GroupCall,
    listener: socket.socket | None,
    n_threads: int,
    folder: Path,
) -> None:
    exit_with_parent(folder)
    lock = Lock()

    def send(message: Kept | Progressed | _Ended) -> None:
        with lock:
            connection.send(message)

    first = {} if listener is None else {"listener": listener.detach(), "kept": connection.recv()}
    own = Member(**{**member.__dict__, "send": send, **first})
    with threads.limit(n_threads), threads.one_blas_thread():
        result = called(call.function, (own, *call.args), call.value_of)
    failed = result if isinstance(result, TaskFailed) else None
    if failed is None and not member.rank:
        try:
            value_file.write(call.result, result)
        except OSError as error:
            failed = TaskFailed(RunError, f"A result cannot be written in {folder}: {error.strerror or error}.")
        except Exception as error:  # noqa: BLE001  # such as a result that cannot be pickled
            failed = TaskFailed.of(error)
    send(_Ended(failed))
