import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from ops.cluster import machine
from ops.cluster.machine import interface_of, own_address, parse_address, store_bytes_here
from ops.cluster.part import wait_for_head
from service.errors import RunError, UsageError


def test_the_address_is_that_of_the_interface_on_the_way() -> None:
    assert own_address(("127.0.0.1", 9)) == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(UsageError, match=r"^203\.0\.113\.7 is not an address of this machine\.$"):
        interface_of("203.0.113.7")


def test_a_name_that_is_not_known_may_become_known() -> None:
    """So it is no wrong option: a job of Kubernetes tries again."""
    with pytest.raises(RunError, match=r"^The name head\.invalid of the head is not known on this machine\.$"):
        own_address(("head.invalid", 7379))


@pytest.mark.parametrize(
    ("free", "shared", "expected"),
    [(10_000, 100_000, 3_000), (10_000, 1_000, 950), (10_000, 64, None), (200, 100_000, None)],
    ids=["memory", "shared memory", "too little shared memory", "too little memory"],
)
def test_the_store_fits_into_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, shared: int, expected: int | None
) -> None:
    """All in MB; a container's 64 MB of shared memory are too few, so Ray chooses another place."""
    monkeypatch.setattr(machine, "available_bytes", lambda: free * 1_000_000)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=shared * 1_000, f_frsize=1_000))
    assert store_bytes_here() == (None if expected is None else expected * 1_000_000)


def test_without_shared_memory_ray_chooses() -> None:
    assert store_bytes_here(Path("/nowhere")) is None


def test_a_head_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its port answers, and no longer than asked for."""
    monkeypatch.setattr("ops.cluster.part._POLL_EVERY_S", 0.01)
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        head = f"127.0.0.1:{late.getsockname()[1]}"
        wait_for_head(head, 0.0)
        waiting = threading.Thread(target=wait_for_head, args=(head, 60.0))
        waiting.start()
        late.listen()
        waiting.join(30.0)
        assert not waiting.is_alive()


def test_an_address_is_a_host_and_a_port() -> None:
    assert parse_address("10.0.0.1:7379") == ("10.0.0.1", 7379)
    for malformed in ("10.0.0.1", ":7379", "host:", "host:0", "host:99999", "host:http"):
        with pytest.raises(UsageError, match="is not the address of a head: it must be HOST:PORT"):
            parse_address(malformed)
