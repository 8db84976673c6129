"""Runs the root file system of an image as a container, without a container runtime: for drills and tests (root).

A pod is read-only but for its volumes, and its program is PID 1, another user than root and without capabilities. It
is in the network of a node, or in that of this process.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ops.nodes.node import Node
from service.errors import RunError

_CONTAIN: Final = Path(__file__).with_name("contain.py")
_PATH: Final = "/opt/recollect/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class PodSpec:
    """What runs, and in which surroundings.

    Args:
        root: The root file system: the files of an image.
        argv: The program and its arguments, the image's entry point included.
        environ: Its whole environment; PATH is added if it is missing.
        volumes: Folders and files of this machine by their place in the pod; the pod may write to them.
        secrets: The same, but read-only.
        tmpfs: Places of empty folders in memory.
        memory: The same with a size in bytes, by their place.
        uid: Its user.
        gid: Its group.
        read_only: Whether the root file system is.
        folder: The working directory.
        host_name: Its host name; that of its network's machine if left out.
    """

    root: Path
    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    tmpfs: Sequence[str] = ("/tmp",)  # noqa: S108 - of the pod
    memory: Mapping[str, int] = field(default_factory=dict)
    uid: int = 1000
    gid: int = 1000
    read_only: bool = True
    folder: str = "/"
    host_name: str = ""

    def command(self) -> list[str]:
        """Return the command that becomes the pod."""
        mounts = [
            {"target": target, "source": str(source.absolute()), "read_only": read_only}
            for binds, read_only in ((self.volumes, False), (self.secrets, True))
            for target, source in binds.items()
        ]
        specification = {
            "root": str(self.root.absolute()),
            "argv": list(self.argv),
            "environ": {"PATH": _PATH, **self.environ},
            "mounts": mounts,
            "tmpfs": {**dict.fromkeys(self.tmpfs), **self.memory},
            "uid": self.uid,
            "gid": self.gid,
            "read_only": self.read_only,
            "folder": self.folder,
            "host_name": self.host_name,
        }
        return [sys.executable, "-IS", str(_CONTAIN), json.dumps(specification)]


class Pod:
    """A running pod. Leaving its context kills it.

    Args:
        spec: What runs.
        node: The node whose network it is in; this process's if None.
        options: As for `subprocess.Popen`: where its output goes.
    """

    def __init__(self, spec: PodSpec, node: Node | None = None, **options: Any) -> None:
        self.spec = spec
        command = spec.command()
        # Not the environment of this process: the pod has its own, and the runner needs none.
        environ = {"PATH": os.environ.get("PATH", _PATH)}
        if node is not None:
            self.process: subprocess.Popen[bytes] = node.popen(command, environ, **options)
        else:
            options.setdefault("start_new_session", True)
            self.process = subprocess.Popen(command, env=environ, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process id, outside the pod, of its PID 1.

        Raises:
            RunError: It has ended or does not run yet.
        """
        runner = self.process.pid
        try:
            children = Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
        except OSError:
            children = []
        if not children:
            raise RunError(f"The pod of {' '.join(self.spec.argv)} does not run.")
        return int(children[0])

    def terminate(self) -> None:
        """Send SIGTERM to its PID 1, as a runtime does to stop it."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill everything in it, and wait until it is gone."""
        try:
            # The kernel ends the other processes of a PID namespace before its PID 1 is gone.
            os.kill(self.pid, signal.SIGKILL)
        except (RunError, ProcessLookupError):
            self.process.kill()
        self.process.communicate()

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code: 128 and the number if a signal ended it.

        Raises:
            RunError: It still runs after the time.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RunError(f"The pod of {' '.join(self.spec.argv)} still runs after {timeout_s:g} s.") from None

    def execute(self, argv: Sequence[str], timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command in the pod, as an exec probe does: same user, same files, same network.

        Raises:
            RunError: The pod does not run.
        """
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--ipc", "--uts", "--net"]
        enter += [f"--setuid={self.spec.uid}", f"--setgid={self.spec.gid}", "--"]
        environ = {"PATH": _PATH, **self.spec.environ}
        return subprocess.run(
            [*enter, *argv], env=environ, capture_output=True, text=True, check=False, timeout=timeout_s
        )
