"""The machines of a cluster, as its head knows them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadbalancer import home
from loadbalancer.errors import NotRunning
from ops.cluster.machine import own_address, parse_address
from ops.cluster.ray_environment import driver_environment
from ops.cluster.token_file import require_token
from service.config import Config
from service.executors.ray_connection import VERSION_LABEL, connected, disconnect


@dataclass(frozen=True)
class ClusterNode:
    """A machine of a cluster.

    Attributes:
        name: Its host name.
        address: Its address.
        is_alive: Whether it answers; one that does not is not used.
        is_head: Whether the head runs there.
        n_workers: Its workers.
        store_bytes: The memory for values there.
        version: The text of `code_version` there; None if `recollect cluster` did not start it.
    """

    name: str
    address: str
    is_alive: bool
    is_head: bool
    n_workers: int
    store_bytes: int
    version: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return asdict(self)


def adopt_cluster_environment(config: Config) -> None:
    """Set the variables that Ray reads in a process that drives a cluster.

    Raises:
        UsageError: There is no token.
    """
    os.environ.update(driver_environment(require_token(config)))
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        os.environ.pop(name, None)


def address_here(config: Config, head: str) -> str:
    """Return the address of this machine in a cluster: that with which it takes part, or that on the way to the head.

    Raises:
        UsageError: The address of the head is malformed, or there is no way there.
    """
    toward = parse_address(head)
    known = part_of_home(config) if is_part(config) else None
    return known.address if known is not None and known.head == head else own_address(toward)


def is_part(config: Config) -> bool:
    """Whether a process of this home directory takes part in a cluster, or is about to."""
    try:
        home.holder_pid(config.cluster_dir)
    except NotRunning:
        return False
    return True


@dataclass(frozen=True)
class HomePart:
    """What a home directory says of its part in a cluster; a killed part leaves it (`is_part`).

    Attributes:
        head: HOST:PORT of the head.
        address: The address of this machine in the cluster.
    """

    head: str
    address: str


def part_of_home(config: Config) -> HomePart | None:
    """Return what the home directory says; None if it says nothing."""
    try:
        known = json.loads(part_path(config).read_text())
        return HomePart(str(known["head"]), str(known["address"]))
    except (OSError, ValueError, KeyError):
        return None


def part_path(config: Config) -> Path:
    """Return the file that says of which cluster this machine is a part, while it is one; a killed part leaves it."""
    return config.cluster_dir / "run" / "part.json"


def values_path(config: Config) -> Path:
    """Return the folder of the values of a cluster that the memory of this machine does not hold."""
    return config.cluster_dir / "run" / "values"


def cluster_nodes(config: Config, address: str) -> list[ClusterNode]:
    """Ask the head for the machines of its cluster; this machine must be one of them.

    Raises:
        UsageError: The address is malformed, or there is no token.
        RunError: The head does not answer or refuses.
    """
    own = address_here(config, address)
    adopt_cluster_environment(config)
    ray = connected(address, own)
    try:
        nodes = [_node(row) for row in ray.nodes()]
    finally:
        disconnect(ray)
    return sorted(nodes, key=lambda node: (not node.is_head, node.name, node.address))


def _node(row: dict[str, Any]) -> ClusterNode:
    resources = row["Resources"]
    return ClusterNode(
        name=row["NodeManagerHostname"],
        address=row["NodeManagerAddress"],
        is_alive=row["Alive"],
        is_head="node:__internal_head__" in resources,
        n_workers=int(resources.get("CPU", 0)),
        store_bytes=int(resources.get("object_store_memory", 0)),
        version=row["Labels"].get(VERSION_LABEL),
    )
