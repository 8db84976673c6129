"""A training group whose members are threads of this process, which reach each other as processes do."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from service.errors import GroupBroken
from service.executors.group_run import GroupRun
from service.executors.member import Member
from service.training.deep.group.group import Group, training_in

T = TypeVar("T")


class _Lost(NamedTuple):
    """A member has lost another one."""

    reason: str


def of_members(size: int, function: Callable[[Group], T]) -> list[T]:
    """Call a function in every member of a group, and return the results by rank.

    As executors do, it starts a group again that lost a connection.
    """
    run = GroupRun()
    while True:
        found: list[T] = []
        for each in _of_one_start(size, function):
            if isinstance(each, _Lost):
                run.lost(each.reason)
                break
            found.append(each)
        else:
            return found


def _of_one_start(size: int, function: Callable[[Group], T]) -> list[T | _Lost]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # The store of the first member closes it, also after an error.
        descriptor = listener.detach()

    def member(rank: int) -> T | _Lost:
        try:
            group = Group(Member(rank, size, "127.0.0.1", port, listener=None if rank else descriptor))
            with training_in(group):
                return function(group)
        except GroupBroken as error:
            # The text alone: the traceback would keep the group, for whose end the others wait.
            return _Lost(str(error))

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(member, range(size)))
