"""Who shares a port with us, asked of real sockets in real processes."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from loadbalancer.foreign_listeners import strangers


@contextlib.contextmanager
def sharing(host: str, port: int) -> Iterator[int]:
    """Another process, in a session of its own, that listens on an address that others may listen on too."""
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
def test_a_stranger_is_named_and_ours_are_not(host: str, free_port: Callable[[], int]) -> None:
    """However the address is written."""
    port = free_port()
    own = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host)
    with sharing(own, port) as first, sharing(own, port) as second:
        assert strangers(host, port, {first, second}) == set()
        (named,) = strangers(host, port, {first})
        assert named.startswith(f"process {second} (python")
        assert len(strangers(host, port, ())) == 2


def test_what_one_of_our_parts_started_is_ours(free_port: Callable[[], int]) -> None:
    """A new nginx master that the old one started, for an upgrade, is in the old one's session."""
    port = free_port()
    with sharing("127.0.0.1", port), socket.create_server(("127.0.0.1", port), reuse_port=True):
        assert len(strangers("127.0.0.1", port, {os.getsid(0)})) == 1


def test_who_listens_elsewhere_takes_nothing_from_us(free_port: Callable[[], int]) -> None:
    """On another address, or another port; the kernel prefers the socket that names the address."""
    port = free_port()
    elsewhere = sharing("127.0.0.2", port), sharing("0.0.0.0", port), sharing("127.0.0.1", free_port())
    with sharing("127.0.0.1", port) as ours, elsewhere[0], elsewhere[1], elsewhere[2]:
        assert strangers("127.0.0.1", port, {ours}) == set()


def test_connections_are_not_listeners(free_port: Callable[[], int]) -> None:
    """Those of our clients are on our port too."""
    port = free_port()
    with sharing("127.0.0.1", port) as ours, socket.create_connection(("127.0.0.1", port)):
        assert strangers("127.0.0.1", port, {ours}) == set()
