"""Foreign processes that share a port, with real sockets in real processes."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from loadbalancer.supervision.foreign_listeners import find


@contextlib.contextmanager
def sharing(host: str, port: int) -> Iterator[int]:
    """Run a process, in a session of its own, that listens on an address with SO_REUSEPORT; yields its pid."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    program = (
        f"import socket, sys\nwith socket.create_server(({host!r}, {port}), family={int(family)}, reuse_port=True):\n"
        "    print('listens', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin, process.stdout:
        assert process.stdout.readline() == b"listens\n"
        yield process.pid


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "*", "localhost"])
def test_a_foreign_listener_is_named_and_parts_are_not(host: str, free_port: Callable[[], int]) -> None:
    """Whichever way the address is written."""
    port = free_port()
    own = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host)
    with sharing(own, port) as first, sharing(own, port) as second:
        assert find(host, port, {first, second}) == set()
        (named,) = find(host, port, {first})
        assert named.startswith(f"process {second} (python")
        assert len(find(host, port, ())) == 2


def test_children_of_a_part_are_not_foreign(free_port: Callable[[], int]) -> None:
    """A new nginx master that the old one started for an upgrade is in the old one's session."""
    port = free_port()
    with sharing("127.0.0.1", port), socket.create_server(("127.0.0.1", port), reuse_port=True):
        assert len(find("127.0.0.1", port, {os.getsid(0)})) == 1


def test_listeners_on_other_addresses_are_not_named(free_port: Callable[[], int]) -> None:
    """The kernel prefers the socket that names the address."""
    port = free_port()
    elsewhere = sharing("127.0.0.2", port), sharing("0.0.0.0", port), sharing("127.0.0.1", free_port())
    with sharing("127.0.0.1", port) as own, elsewhere[0], elsewhere[1], elsewhere[2]:
        assert find("127.0.0.1", port, {own}) == set()


def test_connections_are_not_listeners(free_port: Callable[[], int]) -> None:
    """Client connections have the same local port."""
    port = free_port()
    with sharing("127.0.0.1", port) as own, socket.create_connection(("127.0.0.1", port)):
        assert find("127.0.0.1", port, {own}) == set()
