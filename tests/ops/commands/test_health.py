"""`recollect health` asks the right process, and says what is wrong."""

import dataclasses
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.cli import application
from ops.commands import health
from ops.commands.health import Question
from ops.console.command_runner import run
from service.config import Config


def cmdline(folder: Path, *words: str) -> Path:
    path = folder / "cmdline"
    path.write_bytes("".join(f"{word}\0" for word in words).encode())
    return path


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        (
            ("/opt/recollect/bin/python", "/opt/recollect/bin/recollect", "serve", "--slot", "0"),
            ["serve", "--slot", "0"],
        ),
        (("/usr/bin/python3", "-m", "ops", "consume"), ["consume"]),
        (("/sbin/docker-init", "--", "recollect", "up"), ["up"]),
        (("/lib/systemd/systemd", "--system"), []),
        (("recollect",), []),
        ((), []),
    ],
)
def test_the_command_of_pid_1(tmp_path: Path, words: tuple[str, ...], argv: list[str]) -> None:
    """With an init of the container runtime before it, too."""
    assert health.command_of(cmdline(tmp_path, *words)) == argv


def test_a_command_line_that_cannot_be_read_is_that_of_another_program(tmp_path: Path) -> None:
    """As for another user's process where /proc hides those."""
    assert health.command_of(tmp_path / "missing") == []


def config(admin_host: str = "127.0.0.1") -> Config:
    return Config(server=dataclasses.replace(Config().server, admin_host=admin_host, admin_port=9100))


@pytest.mark.parametrize(
    ("argv", "environ", "question"),
    [
        (["serve"], {}, Question("recollect serve", "127.0.0.1", 9100)),
        (["serve", "--admin-port", "9200"], {}, Question("recollect serve", "127.0.0.1", 9200)),
        (["consume"], {}, Question("recollect consume", "127.0.0.1", 8092)),
        (["consume", "--admin-port=9300"], {}, Question("recollect consume", "127.0.0.1", 9300)),
        (["up"], {"RECOLLECT_BALANCER_HOST": "0.0.0.0"}, Question("The installation", "127.0.0.1", 8080)),
        (["balance", "--port", "80"], {"RECOLLECT_PORT": "81"}, Question("The installation", "127.0.0.1", 80)),
        ([], {"RECOLLECT_PORT": "8888"}, Question("The installation", "127.0.0.1", 8888)),
        (
            ["up"],
            {"RECOLLECT_TLS_CERT": "/a", "RECOLLECT_TLS_KEY": "/b"},
            Question("The installation", "127.0.0.1", 8080, is_tls=True),
        ),
        (["train", "--data", "demo"], {}, None),
    ],
)
def test_whom_it_asks(argv: list[str], environ: dict[str, str], question: Question | None) -> None:
    """By the verb, its options and the settings; a command without a port is healthy while it runs."""
    assert health.question_for(argv, environ, config("0.0.0.0")) == question


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, text = {"/healthz": (200, b"ok\n"), "/readyz": (503, b"no model yet\n")}[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_lives_and_is_not_ready(
    port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The exit code is 0 and 1; the reason is the process's own."""
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path))
    monkeypatch.setenv("RECOLLECT_PORT", str(port))
    assert run(application(["health"]), ["health"]) == 0
    assert run(application(["health"]), ["health", "--ready"]) == 1
    assert capsys.readouterr().err == "recollect: The installation answers /readyz with 503: no model yet.\n"


def test_nothing_listens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free_port: object, tmp_path: Path
) -> None:
    """The address is in the sentence."""
    assert callable(free_port)
    number = free_port()
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path))
    monkeypatch.setenv("RECOLLECT_PORT", str(number))
    assert run(application(["health"]), ["health"]) == 1
    assert f"The installation does not answer at 127.0.0.1:{number}: " in capsys.readouterr().err
