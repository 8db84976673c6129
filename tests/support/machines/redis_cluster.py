"""A real Redis Cluster on loopback: three masters, and a replica of each where a test wants them to be replaced."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from loadbalancer.binaries import find_redis
from telemetry.stream.redis_slots import N_SLOTS, slot_of_key

# A node that does not answer for so long is replaced.
_NODE_TIMEOUT_MS = 1000


class ClusterNode:
    """One redis-server of a cluster."""

    def __init__(self, directory: Path, port: int, bus_port: int) -> None:
        self.port = port
        self.dir = directory
        directory.mkdir()
        self._argv = [str(find_redis(None).path), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._argv += ["--cluster-enabled", "yes", "--cluster-port", str(bus_port), "--save", "", "--appendonly", "yes"]
        self._argv += ["--cluster-node-timeout", str(_NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))

    def call(self, *words: str | int) -> object:
        with self.client() as client:
            return client.execute_command(*words)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self._process.kill()
        self._process.wait()


class RedisCluster:
    """Masters that share the slots evenly, each with so many replicas."""

    def __init__(self, directory: Path, free_port: Callable[[], int], *, replicas: int = 0) -> None:
        n = 3 * (1 + replicas)
        self.nodes = [ClusterNode(directory / str(number), free_port(), free_port()) for number in range(n)]
        self.masters = self.nodes[:3]
        self._wait(lambda: all(self._pings(node) for node in self.nodes), "a node of the cluster")
        bounds = [N_SLOTS * number // 3 for number in range(4)]
        for number, node in enumerate(self.masters):
            node.call("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        ids = [self._id(node) for node in self.masters]
        for node in self.nodes[1:]:
            bus = node._argv[node._argv.index("--cluster-port") + 1]
            self.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        self._wait(lambda: all(self._knows(node, n) for node in self.nodes), "the nodes to meet")
        for number, node in enumerate(self.nodes[3:]):
            node.call("CLUSTER", "REPLICATE", ids[number % 3])
        self._wait(lambda: all(self._is_well(node) for node in self.nodes), "the cluster to be complete")

    @property
    def url(self) -> str:
        return "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    def master_of(self, key: str) -> ClusterNode:
        """Return the node that first had the slot of a key."""
        return self.masters[min(2, slot_of_key(key) * 3 // N_SLOTS)]

    def flush(self) -> None:
        for node in self.masters:
            node.call("FLUSHALL")

    def fill(self, full: bool) -> None:
        for node in self.masters:
            node.call("CONFIG", "SET", "maxmemory", 1 if full else 0)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    def _pings(self, node: ClusterNode) -> bool:
        try:
            return bool(node.call("PING"))
        except redis.RedisError:
            return False

    def _id(self, node: ClusterNode) -> str:
        answer = node.call("CLUSTER", "MYID")
        assert isinstance(answer, bytes)
        return answer.decode()

    def _knows(self, node: ClusterNode, n: int) -> bool:
        answer = node.call("CLUSTER", "NODES")
        text = answer.decode() if isinstance(answer, bytes) else str(answer)
        return text.count("connected") - text.count("disconnected") >= n and "handshake" not in text

    def _is_well(self, node: ClusterNode) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER", "INFO")
            if "master_link_status:down" in str(client.execute_command("INFO", "replication")):
                return False
            if isinstance(info, dict):
                return info.get("cluster_state") == "ok"
            return b"cluster_state:ok" in info

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + 30
        while not done():
            if time.monotonic() > deadline_s:
                self.stop()
                pytest.fail(f"waited 30 s for {what}")
            time.sleep(0.02)
