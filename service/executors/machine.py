"""A machine on which workers run, as what tells it from all others."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Machine:
    """A machine.

    Attributes:
        name: Its host name, which several machines may have.
        address: Its address in the cluster, which no other one has; its host name if it works alone.
    """

    name: str
    address: str


def this_machine(address: str | None = None) -> Machine:
    """Return this machine, with its address in the cluster if it is a part of one."""
    name = socket.gethostname()
    return Machine(name, name if address is None else address)
