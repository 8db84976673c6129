"""Ports are chosen outside the range of outgoing connections, and a taken one is refused."""

import socket
from collections.abc import Callable, Iterator

import pytest

from loadbalancer import ports
from loadbalancer.errors import BadSetting, PortTaken


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_chosen_ports_are_free_different_and_below_the_ephemeral_range() -> None:
    """No outgoing connection takes one while its part restarts."""
    chosen = ports.choose(50)
    assert len(set(chosen)) == 50
    assert all(20_000 <= port < 32_000 for port in chosen)
    for port in chosen:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_a_taken_port_is_not_chosen(listener: int) -> None:
    """Nor one that is reserved by the caller."""
    with pytest.raises(PortTaken, match="1 free ports"):
        ports.choose(1, among=range(listener, listener + 1))
    with pytest.raises(PortTaken):
        ports.choose(1, taken=frozenset({listener - 1}), among=range(listener - 1, listener))


def test_a_taken_port_is_refused_with_its_address(listener: int) -> None:
    """On the given address, and on every address."""
    with pytest.raises(PortTaken, match=rf"Another process listens on 127\.0\.0\.1:{listener}; stop it or choose"):
        ports.require_free("127.0.0.1", listener)
    with pytest.raises(PortTaken):
        ports.require_free("0.0.0.0", listener)


def test_a_port_that_can_be_shared_is_taken_too(free_port: Callable[[], int]) -> None:
    """nginx could share it, but its listener belongs to another installation."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port), reuse_port=True), pytest.raises(PortTaken):
        ports.require_free("127.0.0.1", port)


def test_closing_connections_do_not_count(free_port: Callable[[], int]) -> None:
    """The port of a server that just exited is free, as for nginx."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = server.accept()
        # Closed on this side first, so that this side waits in TIME_WAIT.
        accepted.close()
        assert client.recv(1) == b""
    ports.require_free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    """192.0.2.0/24 is for documentation (RFC 5737)."""
    with pytest.raises(BadSetting, match="is not an address of this machine"):
        ports.require_free(host, 8080)
