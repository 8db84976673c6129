import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.nodes.network import network
from ops.nodes.node import Node
from service.errors import RunError
from tests.support.machines.real_nodes import require_nodes

ECHO = """import socket, sys
server = socket.create_server(("", 7000))
while True:
    connection, _ = server.accept()
    connection.sendall(socket.gethostname().encode())
"""
ASK = """import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=5) as connection:
    print(connection.recv(100).decode())
"""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    require_nodes()
    with network(2, folder=tmp_path) as (first, second):
        yield first, second


def answer_of(node: Node) -> str | None:
    """Return what the node's server says to this process, or None without an answer within 300 ms."""
    try:
        with socket.create_connection((node.address, 7000), timeout=0.3) as connection:
            return connection.recv(100).decode()
    except OSError:
        return None


def test_nodes_reach_each_other_by_name_and_this_process_by_address(
    pair: tuple[Node, Node], wait_until: Callable[..., None]
) -> None:
    first, second = pair
    second.popen([sys.executable, "-c", ECHO])
    wait_until(lambda: answer_of(second) == "node2")
    assert first.run([sys.executable, "-c", ASK, "node2"]).strip() == "node2"
    # Each has ports of its own.
    assert answer_of(first) is None
    with socket.create_server((first.host_address, 0)) as server:
        port = server.getsockname()[1]
        caller = first.popen(
            [sys.executable, "-c", f"import socket; socket.create_connection(('{first.host_address}', {port})).recv(1)"]
        )
        connection, (address, _) = server.accept()
        assert address == first.address
        connection.close()
    assert caller.wait(10) == 0


def test_a_killed_node_is_silent_and_keeps_its_disk(pair: tuple[Node, Node], wait_until: Callable[..., None]) -> None:
    """An open connection gets neither an end nor a reset; after the start nothing runs and the files are there."""
    first, _ = pair
    first.run(["sh", "-c", "echo kept >file"])
    boots = {node.run(["cat", "/proc/sys/kernel/random/boot_id"]) for node in pair}
    # A process that left its session is killed, too.
    first.popen(["setsid", "--fork", sys.executable, "-c", ECHO])
    wait_until(lambda: answer_of(first) == "node1")
    with socket.create_connection((first.address, 7000)) as connection:
        assert connection.recv(100) == b"node1"
        first.kill()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    with pytest.raises(RunError, match=r"node1 is off\."):
        first.popen(["true"])
    first.start()
    assert first.run(["cat", "file"]) == "kept\n"
    boots.add(first.run(["cat", "/proc/sys/kernel/random/boot_id"]))
    assert len(boots) == 3
    assert answer_of(first) is None
    first.popen([sys.executable, "-c", ECHO])
    wait_until(lambda: answer_of(first) == "node1")


def test_a_cut_node_runs_on_and_is_reached_after_the_cut(
    pair: tuple[Node, Node], wait_until: Callable[..., None]
) -> None:
    first, second = pair
    server = first.popen([sys.executable, "-c", ECHO])
    wait_until(lambda: answer_of(first) == "node1")
    first.cut()
    assert answer_of(first) is None
    with pytest.raises(RunError, match="ended with status 1 on node2"):
        second.run([sys.executable, "-c", ASK.replace("timeout=5", "timeout=0.2"), "node1"])
    assert server.poll() is None
    first.heal()
    wait_until(lambda: answer_of(first) == "node1")


def test_signals_reach_the_process_and_a_private_directory_is_the_nodes_own(tmp_path: Path) -> None:
    require_nodes()
    private = tmp_path / "shared"
    private.mkdir()
    with network(2, names=["a", "b"], folder=tmp_path, private=[private]) as (a, b):
        a.run(["sh", "-c", f"hostname >{private}/name"])
        assert a.run(["cat", f"{private}/name"]) == "a\n"
        with pytest.raises(RunError, match="No such file"):
            b.run(["cat", f"{private}/name"])
        sleeper = a.popen(["sleep", "100"])
        sleeper.terminate()
        assert sleeper.wait(10) == -15


def test_nothing_stays_behind_when_the_process_that_made_the_nodes_is_killed(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    require_nodes()
    made = (
        "from ops.nodes.network import network\nimport os, signal\n"
        f"with network(1, folder=__import__('pathlib').Path({str(tmp_path)!r})) as [node]:\n"
        "    node.popen(['setsid', '--fork', 'sleep', '4321'])\n    node.run(['sleep', '0.2'])\n"
        "    print(node.address, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True)
    prefix = done.stdout.strip().rpartition(".")[0]
    assert prefix.startswith("198.1")

    def links() -> str:
        return subprocess.run(["ip", "-4", "route"], capture_output=True, text=True).stdout

    def sleepers() -> list[bytes]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found.append(entry.read_bytes())
        return [line for line in found if line == b"sleep\x004321\x00"]

    wait_until(lambda: prefix not in links() and not sleepers())
