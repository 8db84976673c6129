"""A running `balance` of real nginx and stand-in replicas."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loadbalancer import roster
from loadbalancer.roster import Row
from loadbalancer.supervision.processes import group_members

STANDIN = Path(__file__).with_name("standin.py")
# Like the console script, but with the stand-in as the program.
BALANCE = """
import os, sys
from ops.commands.balance import balance
from ops.console.command_runner import exit_code_of
from service.config import from_env
insecure = bool(os.environ.get("TEST_INSECURE"))
sys.exit(exit_code_of(lambda: balance(from_env(os.environ), program=sys.argv[1:], insecure=insecure)))
"""


@dataclass
class BalancedInstallation:
    """A `balance` process in a home directory of its own."""

    folder: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (sys.executable, str(STANDIN))
    user: int | None = None
    process: subprocess.Popen[str] | None = None
    groups: dict[int, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "var"

    def start(self) -> None:
        self.process = self.popen(subprocess.Popen)

    def popen(self, popen: Callable[..., subprocess.Popen[Any]]) -> subprocess.Popen[str]:
        """Start it with `popen`, which may start it on another node; the caller ends it."""
        environ = {
            **os.environ,
            "RECOLLECT_HOME": str(self.home),
            "RECOLLECT_LOGS": str(self.folder / "logs"),
            "RECOLLECT_PORT": str(self.port),
            # Short, so that a drain waits one second for idle connections and not five.
            "RECOLLECT_UPSTREAM_KEEPALIVE_S": "1",
            **self.settings,
        }
        become = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        return popen(
            [sys.executable, "-c", BALANCE, *self.program],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **become,
        )

    def start_and_wait(self) -> None:
        self.start()
        self.wait_for("balancing at")

    def wait_for(self, words: str) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if words in line:
                self.record_groups()
                return
        pytest.fail(f"it ended without printing {words!r}: {self.process.communicate()}")

    def record_groups(self) -> None:
        """Record the current process groups, to find survivors later."""
        self.groups.update({row.pid: row.output for row in self.rows().values() if row.pid is not None})

    def survivors(self) -> list[int]:
        return [pid for leader, output in self.groups.items() for pid in group_members(leader, output)]

    def rows(self) -> dict[str, Row]:
        return {row.name: row for row in roster.read(self.home)}

    def pid(self, name: str) -> int:
        pid = self.rows()[name].pid
        assert pid is not None
        return pid

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str, str]:
        """Wait for its end; return its status, output and errors."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def get(
        self, path: str, *, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def end(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.record_groups()
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.communicate(timeout=30)
            self.process.kill()
            self.process.communicate()
        for leader in self.groups:
            if group_members(leader, self.groups[leader]):
                os.killpg(leader, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def new_installation(folder: Path) -> BalancedInstallation:
    models = folder / "var" / "models"
    models.mkdir(parents=True)
    (models / "popular.txt").write_text("1,2,3\n")
    (models / "popular.json").write_text('{"items": [], "degraded": "static"}')
    return BalancedInstallation(folder, free_port())
