"""A network of nodes: one switch, and a link from this process to it.

The switch is a namespace of its own, so of the machine's network only one interface is used, `rl-A-B`, with address
198.A.B.254. The addresses are of 198.18.0.0/15, which RFC 2544 reserves for tests of networks.
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops.nodes import namespace
from ops.nodes.namespace import Namespace
from ops.nodes.node import Node
from service.errors import RunError

_TRIES = 20


@contextmanager
def network(
    n: int, *, names: Sequence[str] | None = None, folder: Path | None = None, private: Sequence[Path] = ()
) -> Iterator[list[Node]]:
    """Make nodes that reach each other and this process; at the end everything in them is killed.

    Args:
        n: The number of nodes.
        names: Their host names; `node1` to `nodeN` if left out.
        folder: Where their disks are; a temporary directory if left out.
        private: Directories that every node has for itself, such as `/tmp`. What this process has there is then not
            visible in a node, so its disks and programs must be elsewhere.

    Raises:
        RunError: This machine or this user cannot make nodes.
    """
    if (reason := namespace.refusal()) is not None:
        raise RunError(reason)
    names = [f"node{number}" for number in range(1, n + 1)] if names is None else names
    if len(names) != n:
        raise RunError(f"{n} nodes need {n} names, and there are {len(names)}.")
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recollect-nodes-")))
        switch = Namespace()
        stack.callback(switch.close)
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "up")
        prefix = _attach_this_process(switch, stack)
        lines = ["127.0.0.1 localhost", *(f"{prefix}.{number} {name}" for number, name in enumerate(names, 1))]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        nodes: list[Node] = []
        for number, name in enumerate(names, 1):
            disk = folder / name
            disk.mkdir(exist_ok=True)
            binds = [(disk / "private" / str(path).strip("/").replace("/", "-"), path) for path in private]
            for source, path in binds:
                source.mkdir(parents=True, exist_ok=True)
                source.chmod(path.stat().st_mode & 0o7777)
            node = Node(name, number, prefix, disk, switch, binds)
            stack.callback(_switch_off, node)
            nodes.append(node)
        yield nodes


def _switch_off(node: Node) -> None:
    if node.is_on:
        node.kill()


def _attach_this_process(switch: Namespace, stack: ExitStack) -> str:
    """Connect this process to the switch with a free subnet and return the subnet's first three bytes."""
    for _ in range(_TRIES):
        second, third = random.choice((18, 19)), random.randrange(256)  # noqa: S311 - no secret
        name, prefix = f"rl-{second}-{third}", f"198.{second}.{third}"
        if namespace.run(["ip", "-4", "route", "show", "root", f"{prefix}.0/24"]).strip():
            continue
        try:
            # Two networks that draw the same subnet at once would give an interface the same name: one of them fails.
            namespace.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "host", "netns", str(switch.pid)])
        except RunError:
            continue
        stack.callback(namespace.run, ["ip", "link", "del", name])
        switch.ip("link", "set", "host", "master", "br0", "up")
        namespace.run(["ip", "addr", "add", f"{prefix}.254/24", "dev", name])
        namespace.run(["ip", "link", "set", name, "up"])
        return prefix
    raise RunError(f"No subnet of 198.18.0.0/15 was free in {_TRIES} tries.")
