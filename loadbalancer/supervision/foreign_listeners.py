"""Finds processes that listen on the address that the installation's nginx share, from /proc.

Invariant: only a process that listens on exactly that address is named, and never one of the installation.

Every process of the same effective user may listen on an address with SO_REUSEPORT, and the kernel gives each a share
of the connections (socket(7)). This cannot be prevented, so it is detected. The kernel refuses processes of other
users, and sockets without SO_REUSEPORT.
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


def find(host: str, port: int, leaders: Collection[int]) -> set[str]:
    """Return a description, such as "process 4711 (nginx)", of each foreign process that listens on an address.

    `leaders` are the session leaders of the installation: every part is one.

    Raises:
        OSError: /proc cannot be read.
    """
    unknown = _listening_inodes(host, port)
    for leader in leaders:
        unknown -= _socket_inodes(leader)
    # Drops the sockets of a part that exited during the look-up.
    unknown &= _listening_inodes(host, port)
    if not unknown:
        return set()
    holders = [pid for pid in _pids() if unknown & _socket_inodes(pid)]
    if not holders:
        return {"a process that is invisible from here"}
    return {f"process {pid} ({_command_name(pid)})" for pid in holders if _session(pid) not in leaders}


def _listening_inodes(host: str, port: int) -> set[str]:
    found: set[str] = set()
    for family, address in _addresses(host):
        wanted = f"{_kernel_address(family, address)}:{port:04X}"
        # A kernel without IPv6 has no table of it.
        with contextlib.suppress(OSError), _TABLES[family].open() as lines:
            next(lines)
            for line in lines:
                _, local, _, state, *_, inode = line.split()[:10]
                # Listeners come first, and there may be many connections.
                if state != _LISTEN:
                    break
                if local == wanted:
                    found.add(inode)
    return found


@cache
def _addresses(host: str) -> frozenset[tuple[socket.AddressFamily, str]]:
    # Cached: a name may need a resolver, and nginx resolves it only when it starts.
    resolved = socket.getaddrinfo("0.0.0.0" if host == "*" else host, None, type=socket.SOCK_STREAM)  # noqa: S104
    return frozenset((family, str(address[0])) for family, _, _, _, address in resolved)


def _kernel_address(family: socket.AddressFamily, host: str) -> str:
    """Return an address as in /proc/net/tcp: words of four bytes, each a native number in hexadecimal."""
    packed = socket.inet_pton(family, host.partition("%")[0])
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _socket_inodes(pid: int) -> set[str]:
    """Return the inodes of a process's sockets; none if it exited or may not be inspected."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(str(Path(entry.path).readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _session(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return 0


def _command_name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "exited"
