"""`balance` before replicas of other machines: real nginx and stand-in replicas on nodes with their own addresses."""

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.nodes.network import network
from ops.nodes.node import Node
from tests.integration.balanced import new_installation
from tests.integration.load import Load
from tests.support.machines.real_nodes import require_nodes

PORT = 8080


@dataclass
class World:
    """Two nodes with two replicas each, and one with nginx alone before the name `replicas`."""

    nodes: list[Node]
    balancers: list[subprocess.Popen[str]]

    @property
    def edge(self) -> Node:
        return self.nodes[2]

    def slots_answering(self) -> set[int | None]:
        """Return the slots of the replicas that answer requests at the edge; None is in it if nginx does."""
        return {self.slot_answering() for _ in range(16)}

    def slot_answering(self) -> int | None:
        url = f"http://{self.edge.address}:{PORT}/v1/recommendations/1"
        with urllib.request.urlopen(url, timeout=10) as response:
            slot: int | None = json.loads(response.read()).get("slot")
            return slot

    def edge_prints(self, words: str) -> None:
        stdout = self.balancers[2].stdout
        assert stdout is not None
        while line := stdout.readline():
            if words in line:
                return
        pytest.fail(f"the edge ended without printing {words!r}")

    def name(self, *nodes: Node) -> None:
        """Have the name `replicas` mean these nodes."""
        hosts = self.edge.folder.parent / "hosts"
        kept = [line for line in hosts.read_text().splitlines() if not line.endswith(" replicas")]
        # Written in place: the file is mounted in the nodes.
        hosts.write_text("\n".join([*kept, *(f"{node.address} replicas" for node in nodes)]) + "\n")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    require_nodes()
    with network(3, folder=tmp_path) as nodes, contextlib.ExitStack() as stack:
        world = World(nodes, [])
        world.name(nodes[0])
        for node in nodes:
            installation = new_installation(node.folder / "installation")
            installation.port = PORT
            installation.settings = {"RECOLLECT_BALANCER_HOST": "0.0.0.0", "TEST_INSECURE": "1"}
            if node is world.edge:
                installation.settings |= {
                    "RECOLLECT_REPLICAS": "0",
                    "RECOLLECT_REMOTE_REPLICAS": "replicas:8100, replicas:8101",
                    "RECOLLECT_RESOLVE_EVERY_S": "0.1",
                }
            else:
                installation.settings |= {
                    "RECOLLECT_REPLICAS": "2",
                    "RECOLLECT_REPLICAS_HOST": node.address,
                    "RECOLLECT_REPLICAS_PORT": "8100",
                    "RECOLLECT_BALANCERS": "1",
                }
            started = installation.popen(node.popen)
            for pipe in (started.stdout, started.stderr):
                assert pipe is not None
                stack.callback(pipe.close)
            world.balancers.append(started)
        yield world


async def test_a_name_gets_replicas_and_a_node_dies_without_a_failed_request(
    world: World, wait_until: Callable[..., None]
) -> None:
    """New addresses of the name are used after seconds; a node that loses power is masked by the other one."""
    first, second, _ = world.nodes
    world.edge_prints("balancing at")
    wait_until(lambda: world.slots_answering() == {0, 1})
    async with Load(PORT, host=world.edge.address, clients=4) as load:
        await load.more(50)
        world.name(first, second)
        world.edge_prints("nginx now sends to 4 replicas of other machines")
        await load.more(50)
        first.kill()
        await load.more(400)
    assert load.failures == []
    assert load.degraded == 0
