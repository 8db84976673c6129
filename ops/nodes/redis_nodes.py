"""Redis on nodes of a drill: a single server on one node, or a Redis Cluster on three.

Invariant: in the cluster a node has one master, and the replica of the master of the node before it. So any one node
may die, and a living replica has each of its slots.
"""

import subprocess
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from loadbalancer.binaries import find_redis
from ops.drill.system.waiting import poll_until
from ops.nodes.node import Node
from service.errors import RunError
from telemetry.errors import StreamError
from telemetry.stream.redis_connection import RedisConnection
from telemetry.stream.redis_slots import N_SLOTS

_MASTER_PORT: Final = 6379
_REPLICA_PORT: Final = 6380
# A master that is silent for so long is replaced; 15 s is Redis' own value.
_NODE_TIMEOUT_MS: Final = 2000
_START_LIMIT_S: Final = 30.0


class RedisNodes:
    """Redis servers on one node, or on three or more as a cluster.

    Args:
        nodes: Where they run.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = list(nodes)
        self._is_cluster = len(self._nodes) > 1

    @property
    def url(self) -> str:
        """The address for RECOLLECT_REDIS_URL in other nodes."""
        return "redis://" + ",".join(f"{node.name}:{_MASTER_PORT}" for node in self._nodes) + "/0"

    def start_on(self, node: Node) -> None:
        """Start the servers of a node, with the data that its disk has."""
        for port in (_MASTER_PORT, _REPLICA_PORT) if self._is_cluster else (_MASTER_PORT,):
            folder = node.folder / f"redis-{port}"
            folder.mkdir(exist_ok=True)
            options = ["--port", str(port), "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", str(folder)]  # noqa: S104 - of the node
            options += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
            options += ["--maxmemory-policy", "noeviction"]
            if self._is_cluster:
                options += ["--cluster-enabled", "yes", "--cluster-node-timeout", str(_NODE_TIMEOUT_MS)]
            with (folder / "output").open("ab") as output:
                node.popen([str(find_redis(None).path), *options], stdout=output, stderr=subprocess.STDOUT)

    async def start(self) -> None:
        """Start all of them, and make the cluster if there are several nodes.

        Raises:
            RunError: They do not come up.
        """
        for node in self._nodes:
            self.start_on(node)
        await self._until(self._all_answer, "Redis does not answer")
        if self._is_cluster:
            await self._form()

    async def _form(self) -> None:
        """Give the masters their slots, have all servers meet, and give each master its replica."""
        n = len(self._nodes)
        bounds = [N_SLOTS * number // n for number in range(n + 1)]
        names = []
        for number, node in enumerate(self._nodes):
            await self._ask(node, _MASTER_PORT, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            await self._ask(node, _MASTER_PORT, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            names.append((await self._ask(node, _MASTER_PORT, "CLUSTER", "MYID")).decode())
        for node in self._nodes:
            for port in (_MASTER_PORT, _REPLICA_PORT):
                await self._ask(self._nodes[0], _MASTER_PORT, "CLUSTER", "MEET", node.address, port)
        await self._until(self._all_met, "The nodes of the Redis Cluster do not meet")
        for number, node in enumerate(self._nodes):
            await self._ask(node, _REPLICA_PORT, "CLUSTER", "REPLICATE", names[number - 1])
        await self._until(self._all_well, "The Redis Cluster is not complete")

    async def _all_answer(self) -> bool:
        return all([await self._try(node, port, "PING") == b"PONG" for node, port in self._servers()])

    async def _all_met(self) -> bool:
        for node, port in self._servers():
            lines = (await self._try(node, port, "CLUSTER", "NODES") or b"").splitlines()
            met = [line for line in lines if b"handshake" not in line and b"disconnected" not in line]
            if len(met) < 2 * len(self._nodes):
                return False
        return True

    async def _all_well(self) -> bool:
        for node, port in self._servers():
            replication = await self._try(node, port, "INFO", "replication") or b""
            if b"cluster_state:ok" not in (await self._try(node, port, "CLUSTER", "INFO") or b""):
                return False
            wanted = b"master_link_status:up" if port == _REPLICA_PORT else b"connected_slaves:1"
            if wanted not in replication:
                return False
        return True

    def _servers(self) -> list[tuple[Node, int]]:
        ports = (_MASTER_PORT, _REPLICA_PORT) if self._is_cluster else (_MASTER_PORT,)
        return [(node, port) for node in self._nodes for port in ports]

    async def _try(self, node: Node, port: int, *command: str) -> Any:
        try:
            return await self._ask(node, port, *command)
        except StreamError:
            return None

    async def _ask(self, node: Node, port: int, *command: str | int) -> Any:
        connection = RedisConnection(f"redis://{node.address}:{port}")
        try:
            await connection.open()
            (reply,) = await connection.exchange([command])
        finally:
            await connection.close()
        return reply

    async def _until(self, condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        if not await poll_until(condition, _START_LIMIT_S):
            raise RunError(f"{otherwise} after {_START_LIMIT_S:g} s.")
