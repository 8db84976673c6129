"""This machine as others see it: its address, and the network interface of that address."""

import os
import socket
from pathlib import Path
from typing import Final

from service.errors import RunError, UsageError
from service.training.memory_budget import available_bytes

# Of a block for documentation (RFC 5737); to connect a UDP socket sends nothing.
_ELSEWHERE = ("192.0.2.1", 9)
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # Ray maps it
# What Ray takes of free memory, and of the shared memory, of which it needs some for itself.
_STORE_SHARE: Final = 0.3
_SHARED_SHARE: Final = 0.95
# Below it Ray refuses.
LEAST_STORE_BYTES: Final = 80_000_000


def own_address(toward: tuple[str, int] | None = None) -> str:
    """Return the address from which this machine reaches another one.

    Args:
        toward: Host and port of the other; None for any machine beyond the local networks.

    Raises:
        RunError: The name of the other is not known, which may change.
        UsageError: There is no way there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.connect(toward or _ELSEWHERE)
            address: str = tried.getsockname()[0]
        except socket.gaierror:
            raise RunError(f"The name {(toward or _ELSEWHERE)[0]} of the head is not known on this machine.") from None
        except OSError as error:
            where = f"reach {toward[0]}" if toward else "reach other machines"
            raise UsageError(f"This machine cannot {where} ({error.strerror or error}): name its --address.") from None
    return address


def interface_of(address: str) -> str:
    """Return the network interface that has an address.

    Raises:
        UsageError: None has it.
    """
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    raise UsageError(f"{address} is not an address of this machine.")


def store_bytes_here(shared_memory: Path = _SHARED_MEMORY) -> int | None:
    """Return the memory for values on this machine: three tenths of what is free, if the shared memory has room for it.

    A container has little shared memory, unless it is given more; with a store larger than that Ray would not use it.

    Returns:
        The bytes; None for Ray's choice, where the shared memory is too small for any.
    """
    try:
        state = os.statvfs(shared_memory)
    except OSError:
        return None
    room = int(_SHARED_SHARE * state.f_bavail * state.f_frsize)
    found = min(int(_STORE_SHARE * available_bytes()), room)
    return found if found >= LEAST_STORE_BYTES else None


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT.

    Raises:
        UsageError: It is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not the address of a head: it must be HOST:PORT, as 10.0.0.1:7379.")
    return host, int(port)
