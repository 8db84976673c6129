"""This machine as others see it: its address, and the network interface of that address."""

import socket

from service.errors import UsageError

# Of a block for documentation (RFC 5737); to connect a UDP socket sends nothing.
_ELSEWHERE = ("192.0.2.1", 9)


def own_address(toward: tuple[str, int] | None = None) -> str:
    """Return the address from which this machine reaches another one.

    Args:
        toward: Host and port of the other; None for any machine beyond the local networks.

    Raises:
        UsageError: There is no way there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.connect(toward or _ELSEWHERE)
            address: str = tried.getsockname()[0]
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


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT.

    Raises:
        UsageError: It is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not the address of a head: it must be HOST:PORT, as 10.0.0.1:7379.")
    return host, int(port)
