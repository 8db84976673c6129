"""Chooses ports, and says in one sentence when one is taken.

Invariant: a chosen port is below the range from which the kernel takes ports for outgoing connections (32768 and up),
for such a connection could otherwise take it while its part restarts.
"""

import contextlib
import errno
import random
import socket

from loadbalancer.errors import BadSetting, PortTaken
from loadbalancer.topology import address

_CHOICE = range(20_000, 32_000)


def choose(count: int, *, taken: frozenset[int] = frozenset()) -> list[int]:
    """Choose free ports of 127.0.0.1.

    Args:
        count: How many.
        taken: Ports that are free now but not for this.

    Raises:
        PortTaken: There are not so many.
    """
    chosen: list[int] = []
    # From a random place on, so that two installations that start at once seldom meet.
    start = random.randrange(len(_CHOICE))  # noqa: S311  # chosen apart, not secret
    for offset in range(len(_CHOICE)):
        if len(chosen) == count:
            break
        port = _CHOICE[(start + offset) % len(_CHOICE)]
        if port in taken:
            continue
        with contextlib.suppress(OSError):
            _try("127.0.0.1", port)
            chosen.append(port)
    if len(chosen) < count:
        raise PortTaken(f"{count} free ports between {_CHOICE.start} and {_CHOICE.stop - 1} are needed")
    return chosen


def require(host: str, port: int) -> None:
    """Make sure that nobody listens where we are going to.

    Raises:
        PortTaken: Somebody does, or the port is not for us.
        BadSetting: The address is not one of this machine's.
    """
    try:
        _try(host, port)
    except socket.gaierror:
        raise BadSetting(f"{host!r} is not an address of this machine") from None
    except PermissionError:
        raise PortTaken(f"Port {port} needs privileges that this user does not have; choose one above 1023") from None
    except OSError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.EINVAL}:
            raise BadSetting(f"{host!r} is not an address of this machine") from None
        raise PortTaken(f"Something else listens on {address(host, port)}; stop it or choose another port") from None


def _try(host: str, port: int) -> None:
    family, kind, protocol, _, where = socket.getaddrinfo(
        None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # As nginx does it: connections of an earlier run that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(where)
        # With SO_REUSEADDR alone, bind succeeds beside another socket that was bound but does not listen.
        probe.listen(1)
