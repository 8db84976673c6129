"""A running `recollect up` of two real replicas, for tests of a whole installation."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from loadbalancer import roster
from loadbalancer.supervision.processes import group_members

DATA = "demo:300x120x6000"


class Up:
    """A `recollect up` of two replicas, with more settings by variable."""

    def __init__(self, folder: Path, *options: str, settings: Mapping[str, str] | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        self.home = folder / "var"
        self.environ = {**os.environ, "RECOLLECT_HOME": str(self.home), "RECOLLECT_LOGS": str(folder / "logs")}
        self.environ |= settings or {}
        self.environ.pop("RECOLLECT_REDIS_URL", None)
        self.printed: list[str] = []
        self.groups: dict[int, str] = {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ops", "up", "--replicas", "2", "--port", str(self.port), *options],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, words: str) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.printed.append(line)
            if words in line:
                self.record_groups()
                return
        pytest.fail(f"it ended without printing {words!r}: {self.printed} {self.process.communicate()}")

    def record_groups(self) -> None:
        self.groups.update({row.pid: row.output for row in roster.read(self.home) if row.pid is not None})

    def survivors(self) -> list[int]:
        return [pid for leader, output in self.groups.items() for pid in group_members(leader, output)]

    def row(self, name: str) -> roster.Row:
        return next(row for row in roster.read(self.home) if row.name == name)

    def ready(self) -> bool:
        rows = roster.read(self.home)
        return bool(rows) and all(row.state == "ready" for row in rows)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def recollect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ops", *arguments], env=self.environ, capture_output=True, text=True, timeout=100
        )

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Stop it; return the exit status and its standard error."""
        self.record_groups()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=40)
        self.printed += out.splitlines(keepends=True)
        return self.process.returncode, err

    def end(self) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)
        else:
            self.process.communicate()
        for leader in self.groups:
            if group_members(leader, self.groups[leader]):
                os.killpg(leader, signal.SIGKILL)
