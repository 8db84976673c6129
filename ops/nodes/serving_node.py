"""A node that serves: `recollect balance`, `recollect consume` and keepalived, as docs/many-machines.md sets them up.

Invariant: what the machines share (models, archive, state, keys) is in one directory outside of all nodes; everything
else, the write-ahead logs above all, is on the node's own disk and is there after a power cut.
"""

import asyncio
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ops.drill.system.waiting import poll_until
from ops.nodes.address_keeper import KEEPALIVED, AddressKeeper
from ops.nodes.node import Node
from ops.nodes.node_journal import NodeJournal
from service.errors import RunError

# Every node has these two for itself.
HOME_PARENT: Final = Path("/srv")
HOME: Final = HOME_PARENT / "recollect"
PRIVATE: Final = (HOME_PARENT, KEEPALIVED)
PORT: Final = 8080
SHARED: Final = ("models", "archive", "state", "security")
_FIRST_REPLICA_PORT: Final = 8100
_READY_LIMIT_S: Final = 90.0
# Settings of the caller would connect the nodes to another installation.
_NOT_INHERITED: Final = re.compile("RECOLLECT_(?!TEST)")


class ServingNode:
    """One serving node.

    Args:
        node: Where it runs.
        others: The other serving nodes.
        shared: The directory that the machines share.
        redis_url: The Redis of all of them.
        replicas: How many replicas each of them has.
        virtual: The address that moves.
        journal: Gets what keepalived says of its state and of the check.
        settings: More settings, by variable.
        arguments: More arguments of `recollect balance`.
    """

    def __init__(
        self,
        node: Node,
        others: Sequence[Node],
        shared: Path,
        redis_url: str,
        *,
        replicas: int,
        virtual: str,
        journal: NodeJournal,
        settings: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._arguments = arguments
        self._n_replicas = replicas
        self.node = node
        self._keeper = AddressKeeper(node, others, virtual, f"http://{node.address}:{PORT}", journal)
        kept = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.match(name)}
        remote = [f"{other.name}:{_FIRST_REPLICA_PORT + slot}" for other in others for slot in range(replicas)]
        self.environ = {
            **kept,
            "RECOLLECT_HOME": str(HOME),
            "RECOLLECT_REDIS_URL": redis_url,
            "RECOLLECT_BALANCER_HOST": "0.0.0.0",  # noqa: S104 - of the node
            "RECOLLECT_PORT": str(PORT),
            "RECOLLECT_REPLICAS": str(replicas),
            "RECOLLECT_REPLICAS_HOST": node.address,
            "RECOLLECT_REPLICAS_PORT": str(_FIRST_REPLICA_PORT),
            "RECOLLECT_REMOTE_REPLICAS": ",".join(remote),
            **(settings or {}),
        }
        self._balance: subprocess.Popen[bytes] | None = None
        home = self._disk(HOME)
        home.mkdir()
        for name in SHARED:
            (shared / name).mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(shared / name)

    def start(self) -> None:
        """Start its programs, after the node was made or switched on again."""
        self._balance = self._popen("balance", [sys.executable, "-m", "ops", "balance", *self._arguments])
        self._popen("consume", [sys.executable, "-m", "ops", "consume"])

    def claim_address(self) -> None:
        """Start keepalived, which takes the address that moves if no other node has it."""
        self._keeper.start()

    async def until_ready(self) -> None:
        """Wait until its nginx and all of its own replicas are ready.

        Its nginx alone is ready as soon as a replica of another node is. If that node then fails, nothing can serve.

        Raises:
            RunError: They are not ready in time.
        """
        if not await poll_until(lambda: asyncio.to_thread(self.is_ready), _READY_LIMIT_S):
            raise RunError(f"{self.node.name} is not ready after {_READY_LIMIT_S:g} s; its output: {self._output()}")

    def is_ready(self) -> bool:
        """Whether its nginx answers that a replica is ready, and each of its own replicas that it is."""
        ports = (PORT, *range(_FIRST_REPLICA_PORT, _FIRST_REPLICA_PORT + self._n_replicas))
        return all(_answers_ready(self.node.address, port) for port in ports)

    def has_address(self) -> bool:
        """Whether it has the address that moves now."""
        return self._keeper.has_address()

    def _popen(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        # The interpreter's modules are found from the working directory, which is the node's disk.
        with (self.node.folder / f"{name}.out").open("ab") as output:
            environ = {**self.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
            return self.node.popen(argv, environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def _disk(self, path: Path) -> Path:
        """Return where this process finds a path of the node."""
        for parent in PRIVATE:
            if path.is_relative_to(parent):
                return self.node.private(parent) / path.relative_to(parent)
        raise RunError(f"{path} is not the node's own.")

    def _output(self) -> str:
        try:
            return (self.node.folder / "balance.out").read_text(errors="replace")[-1000:]
        except OSError:
            return "none"


def _answers_ready(host: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
