"""The drill of a cluster: two machines train and generate together, a worker or a whole machine is lost in the middle.

Invariant: what comes out is what comes out of one machine that loses nothing, to the bit. The machine of the command is
one node, so that the other one can be lost.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from ops.nodes.node import Node
from service.errors import RunError

Loss: TypeAlias = Literal["worker", "machine"]
LOSSES: Final[tuple[Loss, ...]] = ("worker", "machine")

_ROOT: Final = Path(__file__).resolve().parents[2]
_PORT: Final = 7379
_STORE_MB: Final = 500
_COMMAND_TIMEOUT_S: Final = 900.0
_STOP_TIMEOUT_S: Final = 60.0
_POLL_EVERY_S: Final = 0.02
# The names that Ray gives to processes at work.
_AT_WORK: Final = (b"ray::do_task", b"ray::MemberProcess.run")


@dataclass(frozen=True)
class Work:
    """A command whose result does not depend on where it runs.

    Attributes:
        name: What it does.
        argv: The verb and its options, but those of workers.
        alone: The options of workers of the run to compare with; a network depends on their number.
        result: From the printed object to what has to be equal.
    """

    name: str
    argv: tuple[str, ...]
    alone: tuple[str, ...]
    result: Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class LossFigures:
    """One work with one loss.

    Attributes:
        work: Its name.
        loss: What was lost; None for an undisturbed run on the cluster.
        alone_s: The seconds of the run of one machine.
        cluster_s: The seconds on the cluster.
        n_killed: The processes that the loss ended.
        is_equal: Whether the results are.
    """

    work: str
    loss: Loss | None
    alone_s: float
    cluster_s: float
    n_killed: int
    is_equal: bool


class TwoMachines:
    """A cluster of two nodes, in which commands run on the first one.

    Args:
        first: The node of the head and of the commands.
        second: The node that may be lost.
        n_workers: The workers of each.
        notify: Called with what happens.
    """

    def __init__(self, first: Node, second: Node, n_workers: int, notify: Callable[[str], None]) -> None:
        self.first: Final = first
        self.second: Final = second
        self._n_workers: Final = n_workers
        self._notify: Final = notify
        self._parts: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """The address of the head."""
        return f"{self.first.address}:{_PORT}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the head, let the second machine join, and stop what runs at the end."""
        try:
            self._start(self.first, "head", "--address", self.first.address, "--port", str(_PORT))
            self.join()
            yield
        finally:
            # A part that outlived its head would wait for it.
            for part in reversed(self._parts):
                part.terminate()
            for part in self._parts:
                part.wait(_STOP_TIMEOUT_S)

    def join(self) -> None:
        """Let the second machine join; it is switched on if it is off."""
        if not self.second.is_on:
            self.second.start()
        token = self.second.folder / "token"
        # As an operator copies it.
        token.unlink(missing_ok=True)
        token.touch(mode=0o600)
        token.write_bytes((self.first.folder / "home/cluster/token").read_bytes())
        self._start(self.second, "join", self.address)

    def run(self, work: Work, options: Sequence[str]) -> tuple[float, Any]:
        """Run a command on the first machine; returns its seconds and its result.

        Raises:
            RunError: It failed.
        """
        argv = [sys.executable, "-m", "ops", *work.argv, *options, "--json"]
        began_s = time.monotonic()
        printed = self.first.run(argv, self._environ(self.first), _COMMAND_TIMEOUT_S)
        return time.monotonic() - began_s, work.result(json.loads(printed))

    def lose(self, loss: Loss) -> int:
        """Wait until the second machine is at work, and lose a worker of it or the machine; returns how many it ended.

        A worker of a group that only prepares itself counts as at work, too.
        """
        while not (busy := at_work(self.second)):
            time.sleep(_POLL_EVERY_S)
        # Not always at the beginning of a task.
        time.sleep(random.uniform(0.0, 0.5))  # noqa: S311  # no secret
        if loss == "machine":
            self._notify(f"{self.second.name} loses its power, with {len(busy)} workers at work.")
            self.second.kill()
            self._parts.pop().wait(_STOP_TIMEOUT_S)
            return len(busy)
        while True:
            for pid in at_work(self.second):
                # It may have ended between the look and the signal.
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self._notify(f"Process {pid} on {self.second.name} is killed.")
                return 1
            time.sleep(_POLL_EVERY_S)

    def _start(self, node: Node, *arguments: str) -> None:
        size = ("--workers", str(self._n_workers), "--store-mb", str(_STORE_MB))
        argv = [sys.executable, "-m", "ops", "cluster", *arguments, *size]
        part = node.popen(argv, self._environ(node), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._parts.append(part)
        if part.stdout is None or "cluster" not in (line := part.stdout.readline().decode()):
            raise RunError(f"{node.name} could not become a part of the cluster: {line.strip()}")
        self._notify(line.strip())

    def _environ(self, node: Node) -> dict[str, str]:
        own = {
            "RECOLLECT_HOME": str(node.folder / "home"),
            "RECOLLECT_LOGS": str(node.folder / "logs"),
            "PYTHONPATH": str(_ROOT),
        }
        if node is self.second:
            own["RECOLLECT_CLUSTER_TOKEN_FILE"] = str(node.folder / "token")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RECOLLECT_")}
        return {**kept, **own}


def at_work(node: Node) -> list[int]:
    """Return the processes of a node that do a task or the part of a member."""
    found = []
    for pid in node.processes():
        # It may have ended since.
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(_AT_WORK):
                found.append(pid)
    return found


def drill(
    machines: TwoMachines, works: Sequence[Work], losses: Sequence[Loss], notify: Callable[[str], None]
) -> Iterator[LossFigures]:
    """Do each work alone, on the cluster, and on the cluster with each loss.

    Raises:
        RunError: A command failed, or ended before anything was lost.
    """
    for work in works:
        notify(f"{work.name}: on one machine.")
        alone_s, expected = machines.run(work, work.alone)
        for loss in (None, *losses):
            notify(f"{work.name}: on the cluster, {'undisturbed' if loss is None else f'with the loss of a {loss}'}.")
            killed: list[int] = []
            thread = threading.Thread(target=lambda loss=loss, killed=killed: killed.append(machines.lose(loss)))
            thread.daemon = True
            if loss is not None:
                thread.start()
            cluster_s, found = machines.run(work, ["--cluster", machines.address])
            if loss is not None:
                thread.join(_POLL_EVERY_S)
                if not killed:
                    raise RunError(f"{work.name} ended before a {loss} was lost: give it more data.")
            yield LossFigures(work.name, loss, alone_s, cluster_s, sum(killed), found == expected)
            if loss == "machine":
                machines.join()
