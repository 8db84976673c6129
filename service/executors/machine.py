"""A machine on which workers run, as what tells it from all others."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        name: Its host name, which several machines may have.
        address: Its address in the cluster, which no other one has; None if it works alone.
    """

    name: str
    address: str | None


def this_machine(address: str | None = None) -> Machine:
    """Return this machine, with its address in the cluster if it is a part of one."""
    return Machine(socket.gethostname(), address)
