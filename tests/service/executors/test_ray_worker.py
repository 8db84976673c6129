import os
from typing import Any

import pytest

from service.errors import RunError
from service.executors import ray_worker
from service.executors.code_version import own_version
from service.executors.machine import this_machine
from service.executors.member import Member
from service.executors.ray_group import MemberProcess
from service.executors.ray_values import pack, unpack
from service.executors.ray_worker import Ended, do_task
from service.executors.task_call import TaskFailed
from service.executors.worker_book import Place

done: list[int] = []


def noted(value: int) -> int:
    done.append(value)
    return value


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of tests keeps its threads, and is of no cluster."""
    done.clear()
    monkeypatch.setattr(ray_worker, "limit_linear_algebra", lambda: None)
    monkeypatch.setattr(ray_worker, "own_place", lambda: Place(this_machine(), os.getpid()))
    monkeypatch.setattr("service.executors.ray_group.limit_linear_algebra", lambda: None)


def refusal(failed: TaskFailed | None) -> str:
    assert failed is not None
    error = failed.error()
    assert type(error) is RunError
    return str(error)


def test_a_worker_does_a_task_only_for_a_command_of_its_code() -> None:
    """The code of a machine may be replaced after it has joined."""
    ended, value = do_task(own_version(), noted, pack((3,)), 1, None, [])
    assert isinstance(ended, Ended)
    assert ended.failed is None
    packed: Any = value
    assert (unpack(packed), done) == (3, [3])
    ended, *parts = do_task("0.1.0-1234", noted, pack((4,)), 2, None, [])
    assert isinstance(ended, Ended)
    assert f"runs Recollect {own_version()} and the machine of the command 0.1.0-1234: " in refusal(ended.failed)
    assert (parts, done) == ([None, None], [3])


def test_a_member_does_its_part_only_for_a_command_of_its_code() -> None:
    process, member = MemberProcess(1), Member(1, 2, "127.0.0.1", 1)
    assert process.run(own_version(), member, of_member, pack((5,)), None, []) == (None, None)
    failed, result = process.run("0.1.0-1234", member, of_member, pack((6,)), None, [])
    assert "and the machine of the command 0.1.0-1234: " in refusal(failed)
    assert (result, done) == (None, [5])


def of_member(member: Member, value: int) -> int:
    return noted(value)
