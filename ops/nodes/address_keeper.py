"""keepalived on a node of a drill, with the shipped files: it keeps an address that moves."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ops.nodes.node import Node
from ops.nodes.node_journal import NodeJournal

KEEPALIVED: Final = Path("/etc/keepalived")
"""Every node has this directory for itself."""
_DEPLOY: Final = Path(__file__).parents[1] / "deploy" / "keepalived"
# Its lines about its state, its priority and its check.
_NOTED: Final = re.compile(r"STATE|[Ss]cript|priority|timed out")


class AddressKeeper:
    """keepalived on one node.

    Args:
        node: The node, with `KEEPALIVED` of its own.
        others: The other nodes that may have the address.
        virtual: The address.
        url: Where nginx answers the check.
        journal: Gets what keepalived says of its state and of the check.
    """

    def __init__(self, node: Node, others: Sequence[Node], virtual: str, url: str, journal: NodeJournal) -> None:
        self._node = node
        self._virtual = virtual
        self._journal = journal
        values = {"ADDRESS": f"{virtual}/24", "OWN": node.address, "URL": url}
        peers = "".join(f"    {other.address}\n" for other in others)
        text = (_DEPLOY / "keepalived.conf").read_text().replace("    $OTHER\n", peers)
        for name, value in values.items():
            text = re.sub(rf"^\${name}=.*$", f"${name}={value}", text, flags=re.MULTILINE)
        folder = node.private(KEEPALIVED)
        (folder / "keepalived.conf").write_text(text)
        shutil.copy(_DEPLOY / "check-recollect", folder)

    def start(self) -> None:
        """Start keepalived, which takes the address if no other node has it; it runs until the node loses its power."""
        folder = self._node.folder
        pids = [f"--pid={folder}/keepalived.pid", f"--vrrp_pid={folder}/vrrp.pid"]
        argv = ["keepalived", "--dont-fork", "--log-console", "--vrrp", *pids]
        started = self._node.popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert started.stdout is not None  # noqa: S101 - it is a pipe
        self._journal.follow(self._node.name, started.stdout, folder / "keepalived.out", _NOTED)

    def has_address(self) -> bool:
        """Whether the node has the address now."""
        return f"inet {self._virtual}/" in self._node.run(["ip", "-4", "addr", "show", "dev", "eth0"])
