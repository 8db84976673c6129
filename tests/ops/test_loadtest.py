import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer

from ops import loadtest
from ops.console.command_runner import run
from ops.load.traffic import Mix
from service.errors import UsageError

_ROOT = Path(__file__).parents[2]
_BY_PATH = [sys.executable, str(_ROOT / "ops" / "loadtest.py")]


class _Handler(BaseHTTPRequestHandler):
    """Answers as Recollect does; lists fail with the status that the server was given."""

    protocol_version = "HTTP/1.1"
    server: "_Service"

    def do_GET(self) -> None:
        if self.path == "/v1/model":
            self._send(200, {"version": "none"})
        elif self.path.startswith("/v1/popular"):
            self._send(200, {"items": [{"item_id": "1"}]})
        else:
            user_id = self.path.rsplit("/", 1)[-1].partition("?")[0]
            items = [{"item_id": str(n), "source": "personal"} for n in range(1 if self.path.endswith("n=1") else 10)]
            self._send(
                self.server.list_status if self.path.endswith("n=10") else 200,
                {"recommendation_id": "r", "user_id": user_id, "items": items},
            )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(202, {"accepted": len(body["events"])})

    def _send(self, status: int, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.server.answered += 1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name for it
        """Stay quiet."""


class _Service(ThreadingHTTPServer):
    daemon_threads = True
    list_status = 200
    answered = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def service() -> Iterator[_Service]:
    with _Service(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _loadtest(tmp_path: Path, *arguments: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "RECOLLECT_HOME": str(tmp_path)}
    return subprocess.run(
        [*(command or _BY_PATH), *arguments], capture_output=True, text=True, timeout=60, env=environ, cwd=tmp_path
    )


@pytest.mark.parametrize("command", [_BY_PATH, [sys.executable, "-m", "ops", "loadtest"]])
def test_the_verb_and_the_path_run_the_same_program(service: _Service, tmp_path: Path, command: list[str]) -> None:
    """By path, from another directory, and as a verb: one JSON object on standard output, and the rate was kept."""
    arguments = [
        "--url",
        service.url,
        "--rate",
        "50",
        "--duration",
        "1",
        "--p99-ms",
        "1500",
        "--max-failures",
        "0",
        "--json",
    ]
    done = _loadtest(tmp_path, *arguments, command=command)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["rate_rps"], figures["requests"], figures["failed"], figures["failures"]) == (50, 50, 0, {})
    assert figures["achieved_rps"] == pytest.approx(50, rel=0.1)
    assert set(figures["latency_ms"]) == {"p50", "p90", "p99", "p99_9", "max"}
    assert figures["kinds"]["feedback"]["events_accepted"] == figures["events_accepted"] > 0
    assert figures["sources"]["users"] == "200 from probing the ids 1 to 200"
    assert "items: 1 from GET /v1/popular" in done.stderr


def test_plain_lines_are_printed_where_there_is_no_terminal(service: _Service, tmp_path: Path) -> None:
    """A pipe gets lines, and a run without objectives succeeds."""
    done = _loadtest(tmp_path, "--url", service.url, "--rate", "50", "--duration", "0.2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("10 requests in ")
    assert "all: 10 requests, 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        (["--max-failures", "0"], "The objective --max-failures 0 was missed"),
        (["--p99-ms", "1000"], "The objective --p99-ms 1000 was missed"),
    ],
)
def test_a_missed_objective_exits_1_and_is_named(
    service: _Service, tmp_path: Path, objective: list[str], sentence: str
) -> None:
    """Quick refusals miss the latency objective as well as the one about failures."""
    service.list_status = 500
    done = _loadtest(tmp_path, "--url", service.url, "--rate", "50", "--duration", "0.4", *objective)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "failed by status_500: " in done.stdout


def test_a_service_without_good_answers_is_a_failed_run(service: _Service, tmp_path: Path) -> None:
    """Even without objectives."""
    service.list_status = 404
    done = _loadtest(tmp_path, "--url", service.url, "--rate", "20", "--duration", "0.2", "--feedback", "0")
    assert done.returncode == 1
    assert "None of the 4 requests" in done.stderr


def test_a_dead_service_is_one_sentence_and_1(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """No traceback."""
    url = f"http://127.0.0.1:{free_port()}"
    done = _loadtest(tmp_path, "--url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"Nothing answers at {url}" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "0"],
        ["--rate", "nan"],
        ["--rate", "fast"],
        ["--duration", "-1"],
        ["--connections", "0"],
        ["--url", "https://127.0.0.1"],
        ["--url", "127.0.0.1:8080"],
        ["--url", "http://127.0.0.1:99999"],
        ["--users", "known=x"],
        ["--users", "strange=1"],
        ["--users", "known=0"],
        ["--feedback", "1.5"],
        ["--arrivals", "sometimes"],
        ["--p99-ms", "0"],
        ["--max-failures", "-1"],
        ["--ids", "/nonexistent/ids"],
        ["--unknown-option"],
        ["surplus"],
    ],
)
def test_bad_usage_is_one_sentence_and_2(
    service: _Service, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option refuses what it cannot mean, before any load is sent."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("loadtest")(loadtest.command)
    assert run(app, ["--url", service.url, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_an_interrupted_run_prints_its_figures(service: _Service, tmp_path: Path) -> None:
    """Marked as interrupted."""
    arguments = ["--url", service.url, "--rate", "50", "--duration", "600", "--json"]
    environ = {**os.environ, "RECOLLECT_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [*_BY_PATH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    assert process.stderr is not None
    # The second line says where the items came from: the attack begins.
    assert process.stderr.readline().startswith("users: ")
    assert process.stderr.readline().startswith("items: ")
    before = service.answered
    while service.answered < before + 10:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    figures = json.loads(output)
    assert process.returncode == 0
    assert figures["interrupted"] is True
    assert figures["requests"] >= 10
    assert figures["duration_s"] < 60


@pytest.mark.parametrize(
    ("users", "mix"),
    [
        ("known=0.6,unknown=0.1,hot=0.3", Mix(0.2, 0.6, 0.1, 0.3)),
        ("known=1", Mix(0.2, 1.0, 0.0, 0.0)),
        ("hot=3, unknown=1", Mix(0.2, 0.0, 0.25, 0.75)),
    ],
)
def test_shares_of_users_are_scaled_to_one(users: str, mix: Mix) -> None:
    """A class without a share has none."""
    parsed = loadtest.parse_mix(users, 0.2)
    assert (parsed.known, parsed.unknown, parsed.hot) == pytest.approx((mix.known, mix.unknown, mix.hot))


def test_a_url_may_have_a_base_path_and_lack_a_port() -> None:
    """As behind another proxy."""
    assert str(loadtest.parse_url("http://example.org/api/")) == "http://example.org:80/api"
    with pytest.raises(UsageError, match="--url"):
        loadtest.parse_url("http://user:secret@example.org")


def test_an_installation_with_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx answers plain HTTP there with 400, which would count as failures of the service."""
    monkeypatch.setenv("RECOLLECT_TLS_CERT", "/tls/cert.pem")
    monkeypatch.setenv("RECOLLECT_TLS_KEY", "/tls/key.pem")
    with pytest.raises(UsageError, match="serves TLS"):
        loadtest.running_url()
