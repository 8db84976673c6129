"""A group of processes of a cluster of Ray that run one function together, see `Executor.run_group`.

Invariant: a group that is started again has as many members as before, on the machines that are left, because its
result depends on their number. A machine may then have more members than cores.
"""

import itertools
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.executors.code_version import own_version
from service.executors.executor import Watch, WorkerEvent, WorkerState
from service.executors.group_run import GroupRun
from service.executors.member import Kept, Member, Progressed
from service.executors.ray_connection import fetched, on_machine, on_this_machine, run_error, usable_machines
from service.executors.ray_values import Packed, pack, unpack
from service.executors.ray_worker import limit_linear_algebra, other_code, own_place, value_by_number
from service.executors.task_call import TaskFailed, called
from service.executors.worker_book import Place
from service.training.algorithms.kernels import threads

_POLL_EVERY_S: Final = 0.5
_START_TIMEOUT_S: Final = 120.0
# How long the death of a member may come after the complaints of the others: as long as a machine without power
# counts as alive, and some more.
_GRACE_S: Final = 30.0


@dataclass(frozen=True)
class RayCall:
    """What the members of a group run.

    Attributes:
        function: Called with the member and the arguments.
        args: The arguments, packed, with a `RayRef` for each value.
        values: Ray's references of the values, by their numbers.
    """

    function: Callable[..., Any]
    args: Packed
    values: Mapping[int, Any]


class Mail:
    """The messages of the first member, for the command that asks now and then."""

    def __init__(self) -> None:
        self._messages: list[Kept | Progressed] = []

    def put(self, message: Kept | Progressed) -> None:
        """Take a message."""
        self._messages.append(message)

    def take(self) -> list[Kept | Progressed]:
        """Return the messages since the last call."""
        taken, self._messages = self._messages, []
        return taken


class _Sender:
    """Sends the messages of a member; what is to be kept has arrived when it returns."""

    def __init__(self, mail: Any) -> None:
        self._mail = mail

    def __call__(self, message: Kept | Progressed) -> None:
        sent = self._mail.put.remote(message)
        if isinstance(message, Kept):
            import ray

            ray.get(sent)


class MemberProcess:
    """The process of a member."""

    def __init__(self, rank: int) -> None:
        self._listener: socket.socket | None = None
        if not rank:
            import ray

            self._listener = socket.create_server((ray.util.get_node_ip_address(), 0))

    def meeting(self) -> tuple[Place, tuple[str, int]]:
        """Return where this process runs, and where it listens if it is the first one."""
        host, port = ("", 0) if self._listener is None else self._listener.getsockname()
        return own_place(), (host, port)

    def run(
        self,
        version: str,
        member: Member,
        function: Callable[..., Any],
        args: Packed,
        mail: Any,
        numbers: Sequence[int],
        *values: Packed,
    ) -> tuple[TaskFailed | None, Packed | None]:
        """Do the part of a member for a command of a version of the code.

        Returns:
            Why it failed, if so; and the result of the first member.
        """
        if (refused := other_code(version)) is not None:
            return refused, None
        limit_linear_algebra()
        listener = None if self._listener is None else self._listener.detach()
        own = Member(**{**member.__dict__, "listener": listener, "send": _Sender(mail)})
        with threads.limit(1):
            result = called(function, (own, *unpack(args)), value_by_number(numbers, values))
        if isinstance(result, TaskFailed):
            return result, None
        if member.rank:
            return None, None
        try:
            return None, pack(result)
        except Exception as error:  # noqa: BLE001  # such as a result that cannot be pickled
            return TaskFailed.of(error), None


class RayGroup:
    """One start of a group.

    Args:
        call: What the members run.
        run: What the command knows of the group.
        size: The number of members.
        watch: Called with each change of a member.
    """

    def __init__(self, call: RayCall, run: GroupRun, size: int, watch: Watch) -> None:
        self._call: Final = call
        self._run: Final = run
        self._size: Final = size
        self._watch: Final = watch
        self._members: list[Any] = []
        self._places: list[Place] = []
        self._mail: Any = None
        self._n_done = 0

    def result(self) -> tuple[str | None, Packed | None]:
        """Start the members and wait until the first one is done; returns why one was lost, or the result.

        Raises:
            RecollectError: That of a member.
            RunError: Ray failed in a way that another start would not change.
        """
        import ray

        # A machine without power counts as alive for a while. A process that was placed there is not a dead actor but
        # one that cannot be placed.
        lost_errors = (
            ray.exceptions.RayActorError,
            ray.exceptions.ActorUnschedulableError,
            ray.exceptions.GetTimeoutError,
        )
        try:
            running = self._start(ray)
        except lost_errors as error:
            return _reason(error), None
        except ray.exceptions.RayError as error:
            raise run_error(error) from None
        lost: str | None = None
        waited_s = 0.0
        while True:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_EVERY_S)
            self._take_mail()
            waited_s += 0.0 if lost is None or ready else _POLL_EVERY_S
            if waited_s > _GRACE_S:
                return lost, None
            for failed in ready:
                rank, value = running.pop(failed)
                try:
                    why = ray.get(failed)
                except lost_errors as error:
                    self._report(rank, "died")
                    return _reason(error), None
                except ray.exceptions.RayError as error:
                    raise run_error(error) from None
                self._n_done += 1
                if why is None:
                    self._report(rank, "left")
                    if not rank:
                        self._take_mail()
                        return None, fetched(value)
                elif (of_member := self._run.error_of(why)) is not None:
                    raise of_member
                else:
                    lost = why.why
            if not running:
                return lost, None

    def end(self) -> None:
        """End all processes."""
        import ray

        for actor in (*self._members, *([] if self._mail is None else [self._mail])):
            ray.kill(actor, no_restart=True)

    def _start(self, ray: Any) -> dict[Any, tuple[int, Any]]:
        """Start the processes; returns their ranks and Ray's references of their results, by that of their failure."""
        self._mail = ray.remote(Mail).options(num_cpus=0, scheduling_strategy=on_this_machine(ray)).remote()
        process = ray.remote(MemberProcess)
        for rank, node in enumerate(machines(self._size, _slots(ray))):
            # Without cores of its own, it starts also where a machine has fewer cores than members.
            options = process.options(num_cpus=0, scheduling_strategy=on_machine(node))
            self._members.append(options.remote(rank))
        meetings = ray.get([actor.meeting.remote() for actor in self._members], timeout=_START_TIMEOUT_S)
        self._places = [place for place, _ in meetings]
        host, port = meetings[0][1]
        running = {}
        for rank, actor in enumerate(self._members):
            kept = None if rank else self._run.kept
            member = Member(
                *(rank, self._size, host, port, self._run.attempt),
                kept=kept,
                keep_interval_s=self._run.keep_interval_s,
            )
            numbers, values = list(self._call.values), self._call.values.values()
            failed, value = actor.run.options(num_returns=2).remote(
                own_version(), member, self._call.function, self._call.args, self._mail, numbers, *values
            )
            running[failed] = rank, value
            self._report(rank, "working")
        return running

    def _take_mail(self) -> None:
        for message in fetched(self._mail.take.remote()):
            self._run.take(message)

    def _report(self, rank: int, state: WorkerState) -> None:
        place, task = self._places[rank], None if state == "left" else rank
        self._watch(
            WorkerEvent(
                f"member-{rank + 1}", place.machine, place.pid, state, self._run.stage, task, self._n_done, self._size
            )
        )


def run_ray_group(call: RayCall, run: GroupRun, size: int, watch: Watch) -> Any:
    """Start a group until it ends without losing a member, and return its result; the arguments are of `RayGroup`.

    Raises:
        RecollectError: That of a member.
        RunError: Members are lost again and again.
    """
    while True:
        group = RayGroup(call, run, size, watch)
        try:
            lost, result = group.result()
        finally:
            group.end()
        if result is not None:
            return unpack(result)
        run.lost(lost or "A member ended without a result.")


def machines(size: int, slots: Sequence[tuple[str, int]]) -> list[str]:
    """Return the machine of each member (pure): one for each core, then again from the first.

    Args:
        size: The number of members.
        slots: The machines with their cores, the first member's first.
    """
    cores = [node for node, n_cores in slots for _ in range(n_cores)] or [node for node, _ in slots]
    return list(itertools.islice(itertools.cycle(cores), size))


def _slots(ray: Any) -> list[tuple[str, int]]:
    """Return the machines for members with their cores; this one first, so that what is kept has no way to go."""
    own = ray.get_runtime_context().get_node_id()
    return sorted(usable_machines(ray), key=lambda slot: (slot[0] != own, slot[0]))


def _reason(error: Exception) -> str:
    if type(error).__name__ == "GetTimeoutError":
        return f"A member was not started within {_START_TIMEOUT_S:g} s."
    return "A process was killed, most likely for want of memory, or its machine was lost."
