"""Finds strangers on an address that our nginx share, from /proc.

Invariant: nobody is named who does not listen on exactly that address, and never a process of ours.

The kernel lets every socket with SO_REUSEPORT and the same effective user id listen on an address, and hands each its
share of the connections (socket(7)). It has no way to forbid that to a process of our own user, so it is found and
told instead. A process of another user, or without SO_REUSEPORT, is refused by the kernel itself.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

_LISTEN = "0A"
_TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}


def strangers(host: str, port: int, leaders: Collection[int]) -> set[str]:
    """Find who else listens on our address.

    Args:
        host: The address our nginx listen on.
        port: The port they listen on.
        leaders: Our own processes that lead a session, as every part does.

    Returns:
        Each in words, such as "process 4711 (nginx)"; empty if there is nobody.
    """
    unknown = _listening(host, port)
    for leader in leaders:
        unknown -= _sockets(leader)
    # One of ours may have ended in between.
    unknown &= _listening(host, port)
    if not unknown:
        return set()
    holders = [pid for pid in _processes() if unknown & _sockets(pid)]
    if not holders:
        return {"a process that cannot be seen from here"}
    return {f"process {pid} ({_name(pid)})" for pid in holders if _session(pid) not in leaders}


def _listening(host: str, port: int) -> set[str]:
    """Return the inodes of the sockets that listen on an address."""
    found: set[str] = set()
    for family, address in _addresses(host):
        local = f"{_as_the_kernel_writes(family, address)}:{port:04X}"
        # A kernel without IPv6 has no table of it.
        with contextlib.suppress(OSError), _TABLES[family].open() as lines:
            next(lines)
            for line in lines:
                _, its_local, _, state, *_, inode = line.split()[:10]
                # Listeners come first, and there may be many connections.
                if state != _LISTEN:
                    break
                if its_local == local:
                    found.add(inode)
    return found


@cache
def _addresses(host: str) -> frozenset[tuple[socket.AddressFamily, str]]:
    # Once, for a name may take a resolver's time; nginx too resolves it when it starts.
    where = socket.getaddrinfo("0.0.0.0" if host == "*" else host, None, type=socket.SOCK_STREAM)  # noqa: S104
    return frozenset((family, str(address[0])) for family, _, _, _, address in where)


def _as_the_kernel_writes(family: socket.AddressFamily, host: str) -> str:
    """Return an address as in /proc/net/tcp: words of four bytes, each a number of this machine in hexadecimal."""
    packed = socket.inet_pton(family, host.partition("%")[0])
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets; none if it ended or is not ours to look at."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(str(Path(entry.path).readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def _processes() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _session(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return 0


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "ended"
