"""Groups of processes: what members know of each other, what the command keeps, and what deaths cost."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DataError, GroupBroken, RunError
from service.executors.executor import MOST_DEATHS, WorkerEvent
from service.executors.group_run import GroupRun
from service.executors.local_executor import LocalExecutor
from service.executors.member import Kept, Member
from service.executors.task_call import TaskFailed


def met(member: Member, table: NDArray[np.float64], factor: float) -> tuple[float, list[int], int]:
    """Send the number of this process to the first member, which is killed once it has kept something."""
    if member.rank:
        with socket.create_connection((member.host, member.port)) as first:
            first.sendall(os.getpid().to_bytes(8))
            first.recv(1)  # until the first member is done
        return 0.0, [], 0
    assert member.listener is not None
    with socket.socket(fileno=os.dup(member.listener)) as listener:
        others = [listener.accept()[0] for _ in range(member.size - 1)]
    pids = [int.from_bytes(other.recv(8)) for other in others]
    member.progress("fit", member.attempt, 3)
    if member.attempt == 0:
        member.keep(b"half")
        os.kill(pids[0] if factor > 1 else os.getpid(), signal.SIGKILL)
        signal.pause()
    assert member.kept == b"half"
    return factor * float(table.sum()), pids, os.getpid()


def kept_behind_others(member: Member) -> bytes | None:
    """Keep something after other messages; then the other member dies."""
    if member.rank:
        with socket.create_connection((member.host, member.port)) as first:
            first.recv(1)
        if not member.attempt:
            os.kill(os.getpid(), signal.SIGKILL)
        return None
    assert member.listener is not None
    with socket.socket(fileno=os.dup(member.listener)) as listener, listener.accept()[0]:
        if not member.attempt:
            for n in range(3):
                member.progress("fit", n, 3)
            member.keep(b"half")
    if not member.attempt:
        signal.pause()
    return member.kept


def killed(member: Member) -> None:
    if member.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def refused(member: Member) -> None:
    if member.rank:
        raise DataError("The row is bad.")
    signal.pause()


@pytest.fixture(scope="module")
def events() -> list[WorkerEvent]:
    return []


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory, events: list[WorkerEvent]) -> Any:
    with LocalExecutor(2, tmp_path_factory.mktemp("values"), events.append) as made:
        yield made


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_group_that_loses_a_member_goes_on_from_what_it_kept(
    executor: LocalExecutor, events: list[WorkerEvent], factor: float
) -> None:
    """Whichever member it is, all are started again; the result and the progress are those of the first member."""
    events.clear()
    kept: list[bytes] = []
    steps: list[tuple[str, int, int]] = []
    table = executor.put(np.ones(10))
    total, pids, first = executor.run_group(
        met, (table, factor), stage="fit", keep=kept.append, progress=lambda *step: steps.append(step)
    )
    assert total == 10 * factor
    assert len({*pids, first}) == 2
    assert kept == [b"half"]
    assert steps == [("fit", 0, 3), ("fit", 1, 3)]
    assert [event.worker for event in events if event.state == "died"] == ["member-2" if factor > 1 else "member-1"]
    assert len({event.pid for event in events}) == 4
    assert all(not Path(f"/proc/{event.pid}").exists() for event in events)


def test_what_was_kept_before_a_death_is_taken_although_the_death_is_seen_first(
    executor: LocalExecutor, events: list[WorkerEvent], wait_until: Callable[..., None]
) -> None:
    """By a command that is slow to read: the other member is dead before it has read the first message."""
    events.clear()
    kept: list[bytes] = []

    def is_dead() -> bool:
        (pid,) = (event.pid for event in events if event.worker == "member-2")
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")

    def progress(*step: object) -> None:
        if step == ("fit", 0, 3):
            wait_until(is_dead)

    assert executor.run_group(kept_behind_others, (), stage="fit", keep=kept.append, progress=progress) == b"half"
    assert kept == [b"half"]


def test_a_group_that_does_not_get_on_is_given_up(executor: LocalExecutor, events: list[WorkerEvent]) -> None:
    events.clear()
    with pytest.raises(RunError, match=rf"lost a member {MOST_DEATHS} times without getting on\. The process was ki"):
        executor.run_group(killed, (), stage="fit")
    assert sum(event.state == "died" for event in events) == MOST_DEATHS
    assert all(not Path(f"/proc/{event.pid}").exists() for event in events)


def test_the_error_of_any_member_is_raised(executor: LocalExecutor, events: list[WorkerEvent]) -> None:
    """At once, although the others would go on."""
    events.clear()
    with pytest.raises(DataError, match=r"^The row is bad\.$"):
        executor.run_group(refused, ())
    assert all(not Path(f"/proc/{event.pid}").exists() for event in events)


def test_losses_are_counted_since_something_was_kept() -> None:
    """A long training may lose any number of members, as long as it gets on in between."""
    run = GroupRun("fit")
    for number in range(10):
        run.lost("It died.")
        run.lost("It died.")
        run.take(Kept(bytes([number])))
    assert (run.kept, run.attempt) == (bytes([9]), 20)
    for _ in range(MOST_DEATHS - 1):
        run.lost("It died.")
    with pytest.raises(RunError, match=r"It died\.$"):
        run.lost("It died.")


def test_a_lost_member_is_no_error_of_those_that_miss_it() -> None:
    run = GroupRun("fit")
    assert run.error_of(TaskFailed(GroupBroken, "It is away.")) is None
    assert isinstance(run.error_of(TaskFailed(DataError, "A row is bad.")), DataError)
