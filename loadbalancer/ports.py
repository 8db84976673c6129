"""Chooses free ports, and checks that a given one is free.

Invariant: a chosen port is below 32768, the start of the range for outgoing connections. An outgoing connection could
otherwise occupy the port while its part restarts.
"""

import contextlib
import errno
import random
import socket

from loadbalancer.errors import BadSetting, PortTaken
from loadbalancer.topology import address

_RANGE = range(20_000, 32_000)


def choose(count: int, *, taken: frozenset[int] = frozenset(), among: range = _RANGE) -> list[int]:
    """Choose free ports of 127.0.0.1 in a range, except those in `taken`.

    Raises:
        PortTaken: Too few are free.
    """
    chosen: list[int] = []
    # From a random start, so that installations that start at the same time rarely collide.
    start = random.randrange(len(among))  # noqa: S311  # no secret
    for offset in range(len(among)):
        if len(chosen) == count:
            break
        port = among[(start + offset) % len(among)]
        if port in taken:
            continue
        with contextlib.suppress(OSError):
            _listen("127.0.0.1", port)
            chosen.append(port)
    if len(chosen) < count:
        raise PortTaken(f"{count} free ports between {among.start} and {among.stop - 1} are needed.")
    return chosen


def require_free(host: str, port: int) -> None:
    """Check that an address is free.

    Raises:
        PortTaken: The port is taken, or this user may not use it.
        BadSetting: The address is not one of this machine.
    """
    try:
        _listen(host, port)
    except socket.gaierror:
        raise BadSetting(f"{host!r} is not an address of this machine.") from None
    except PermissionError:
        raise PortTaken(f"Port {port} needs privileges that this user does not have; choose one above 1023.") from None
    except OSError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.EINVAL}:
            raise BadSetting(f"{host!r} is not an address of this machine.") from None
        raise PortTaken(f"Another process listens on {address(host, port)}; stop it or choose another port.") from None


def _listen(host: str, port: int) -> None:
    family, kind, protocol, _, where = socket.getaddrinfo(
        None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # As in nginx: connections of an earlier run that are closing do not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(where)
        # With SO_REUSEADDR alone, bind succeeds beside another socket that is bound but does not listen.
        probe.listen(1)
