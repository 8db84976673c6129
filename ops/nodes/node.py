"""A node of a drill: a machine with an address, a host name, a disk and processes, which can lose power or its network.

Invariant: what a node does when it fails is what a machine does: a node that is killed sends nothing any more, not
even the end of its connections, and its disk (`folder`) is left as it was.
"""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.nodes.namespace import Namespace
from service.errors import RunError

_KILL_TIMEOUT_S = 10.0
_HOSTS = Path("/etc/hosts")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Node:
    """One node of a `network`.

    Attributes:
        name: Its host name, which every node of the network resolves.
        address: Its IPv4 address.
        folder: Its disk: a directory that outlives `kill`, and the working directory of its processes.
        host_address: The address at which nodes reach this process.
    """

    def __init__(
        self,
        name: str,
        number: int,
        prefix: str,
        folder: Path,
        switch: Namespace,
        binds: Sequence[tuple[Path, Path]],
    ) -> None:
        self.name = name
        self.address = f"{prefix}.{number}"
        self.host_address = f"{prefix}.254"
        self.folder = folder
        self._number = number
        self._switch = switch
        self._binds = binds
        self._namespace: Namespace | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self.start()

    @property
    def pid(self) -> int:
        """A process whose namespaces are the node's: `/proc/PID/ns/net` and `/proc/PID/ns/mnt`.

        Raises:
            RunError: The node is off.
        """
        return self._running().pid

    def processes(self) -> list[int]:
        """Return the processes that run in the node; none if it is off."""
        return [] if self._namespace is None else self._namespace.processes()

    def start(self) -> None:
        """Switch the node on: no process runs in it yet; its address and its disk are as before.

        Raises:
            RunError: It is on, or the machine refuses.
        """
        if self._namespace is not None:
            raise RunError(f"{self.name} is on already.")
        # Where a program has to tell two machines apart, or two boots of one, it reads this.
        boot_id = self.folder / "boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        binds = [(self.folder.parent / "hosts", _HOSTS), (boot_id, _BOOT_ID), *self._binds]
        namespace = Namespace(self.name, binds)
        self._namespace = namespace
        port = self._port
        # The same hardware address after every start, as a machine has: neighbours remember it.
        mac = f"02:00:00:00:00:{self._number:02x}"
        self._switch.ip(
            *("link", "add", port, "type", "veth"),
            *("peer", "name", "eth0", "address", mac, "netns", str(namespace.pid)),
        )
        self._switch.ip("link", "set", port, "master", "br0", "up")
        namespace.ip("addr", "add", f"{self.address}/24", "dev", "eth0")
        namespace.ip("link", "set", "eth0", "up")

    def argv(self, argv: Sequence[str]) -> list[str]:
        """Return the command that replaces itself by `argv` in this node, for a caller that starts it.

        Raises:
            RunError: The node is off.
        """
        return self._running().entering(argv, self.folder)

    def popen(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process in the node, in a session of its own; the options are those of `subprocess.Popen`.

        The process id is the one of the command itself, so that signals reach it. Without `env`, it inherits this
        process's environment.

        Raises:
            RunError: The node is off.
        """
        options.setdefault("start_new_session", True)
        child: subprocess.Popen[bytes] = subprocess.Popen(self.argv(argv), env=env, **options)
        self._children.append(child)
        return child

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout_s: float = 60.0) -> str:
        """Run a command in the node to its end and return its standard output.

        Raises:
            RunError: The node is off, or the command failed.
        """
        done = subprocess.run(self.argv(argv), env=env, capture_output=True, text=True, check=False, timeout=timeout_s)
        if done.returncode != 0:
            text = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise RunError(f"{argv[0]} ended with status {done.returncode} on {self.name}: {text}")
        return done.stdout

    def kill(self) -> None:
        """Cut the power: the link goes first, then every process of the node at once (SIGKILL).

        Raises:
            RunError: A process is still alive after 10 s.
        """
        namespace = self._running()
        # Without its link the node's kernel can send no reset for connections whose process is gone.
        self._switch.ip("link", "del", self._port)
        deadline_s = time.monotonic() + _KILL_TIMEOUT_S
        for child in self._children:
            # One that was just started may not have entered the node yet.
            child.kill()
        while alive := namespace.processes():
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for child in self._children:
                child.poll()
            if time.monotonic() > deadline_s:
                raise RunError(f"Processes {alive} of {self.name} do not end.")
            time.sleep(0.002)
        for child in self._children:
            child.wait()
        self._children.clear()
        namespace.close()
        self._namespace = None

    def cut(self) -> None:
        """Cut the node off: its link stays up and its processes run, but nothing passes in either direction."""
        self._running()
        self._switch.ip("link", "set", self._port, "nomaster")

    def heal(self) -> None:
        """Undo `cut`."""
        self._running()
        self._switch.ip("link", "set", self._port, "master", "br0")

    def private(self, path: Path) -> Path:
        """Return where this process finds one of the node's private directories.

        Raises:
            RunError: The path is not one of them.
        """
        for source, place in self._binds:
            if place == path:
                return source
        raise RunError(f"{path} is not one of {self.name}'s own directories.")

    @property
    def is_on(self) -> bool:
        """Whether it was started and not killed."""
        return self._namespace is not None

    @property
    def _port(self) -> str:
        return f"p{self._number}"

    def _running(self) -> Namespace:
        if self._namespace is None:
            raise RunError(f"{self.name} is off.")
        return self._namespace
