"""A training group whose members are threads of this process, which reach each other as processes do."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.executors.member import Member
from service.training.deep.group import Group, training_in

T = TypeVar("T")


def of_members(size: int, function: Callable[[Group], T]) -> list[T]:
    """Call a function in every member of a group, and return the results by rank."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def member(rank: int) -> T:
            group = Group(Member(rank, size, "127.0.0.1", port, listener=None if rank else listener.fileno()))
            with training_in(group):
                return function(group)

        with ThreadPoolExecutor(size) as pool:
            found = list(pool.map(member, range(size)))
        # The store of the first member owns the descriptor.
        listener.detach()
    return found
