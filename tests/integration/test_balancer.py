"""`balance` with real nginx and stand-in replicas: what is promised while processes die, drain and restart."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from loadbalancer import roster
from loadbalancer.processes import group_members
from loadbalancer.roster import Row
from ops.balance import restart
from service.config import Config

STANDIN = Path(__file__).with_name("standin.py")
# As the console script does it, but with the stand-in's program.
BALANCE = """
import os, sys
from ops.balance import balance
from ops.refusal import told
from service.config import from_env
sys.exit(told(lambda: balance(from_env(os.environ), program=sys.argv[1:])))
"""


@dataclass
class Installation:
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
        self.process = subprocess.Popen(
            [sys.executable, "-c", BALANCE, *self.program],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **become,  # type: ignore[call-overload]  # the overloads of Popen do not take keywords from a dict
        )

    def start_and_wait(self) -> None:
        self.start()
        self.wait_for("balancing at")

    def wait_for(self, words: str) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if words in line:
                self.remember()
                return
        pytest.fail(f"it ended without saying {words!r}: {self.process.communicate()}")

    def remember(self) -> None:
        """Note every process group there ever was, to look for survivors later."""
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
            self.remember()
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


def new_installation(folder: Path) -> Installation:
    models = folder / "var" / "models"
    models.mkdir(parents=True)
    (models / "popular.txt").write_text("1,2,3\n")
    (models / "popular.json").write_text('{"items": [], "degraded": "static"}')
    return Installation(folder, free_port())


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """An installation that is not started."""
    made = new_installation(tmp_path)
    yield made
    made.end()


@pytest.fixture
def running(installation: Installation) -> Installation:
    """An installation of three replicas, all ready."""
    installation.start_and_wait()
    return installation


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation for tests that only ask it something."""
    made = new_installation(tmp_path_factory.mktemp("shared"))
    made.start_and_wait()
    yield made
    made.end()


class Load:
    """Keep-alive clients that look for the end of a connection before they use it again, and never retry."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = 0
        self.failures: list[str] = []
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._clients = [asyncio.create_task(self._client(number)) for number in range(8)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._clients)

    async def _client(self, number: int) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while not self._stop.is_set():
            try:
                if reader is None or writer is None or reader.at_eof():
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                async with asyncio.timeout(5):
                    writer.write(self._request(number))
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                if head.startswith(b"http/1.1 200") and b"x-degraded" not in head:
                    self.answered += 1
                else:
                    self.failures.append(head.decode())
                if b"connection: close" in head:
                    writer.close()
                    reader = None
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(repr(error))
                reader = None
            # A rate that leaves two cores room for the processes under test.
            await asyncio.sleep(0.02)
        if writer is not None:
            writer.close()
            await writer.wait_closed()

    def _request(self, number: int) -> bytes:
        if number % 4 == 0:
            return b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        return b"GET /v1/recommendations/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number


# --- while replicas come and go


async def test_killing_a_replica_fails_no_request(running: Installation, await_until: Callable[..., object]) -> None:
    """It is started again on its own port, and clients that never retry notice nothing."""
    before = running.rows()["replica-1"]
    async with Load(running.port) as load:
        await _until(lambda: load.answered > 100)
        os.kill(running.pid("replica-1"), signal.SIGKILL)
        await _until(lambda: running.rows()["replica-1"].restarts == 1)
        await _until(lambda: running.rows()["replica-1"].state == "ready")
        answered = load.answered
        await _until(lambda: load.answered > answered + 200)
    after = running.rows()["replica-1"]
    assert load.failures == []
    assert (after.port, after.admin_port) == (before.port, before.admin_port)
    assert after.pid != before.pid


async def test_freezing_a_replica_fails_no_request(running: Installation) -> None:
    """Connections to it stay open and nothing answers; nginx asks another replica, and soon asks this one seldom."""
    async with Load(running.port) as load:
        await _until(lambda: load.answered > 100)
        os.kill(running.pid("replica-1"), signal.SIGSTOP)
        answered = load.answered
        await _until(lambda: load.answered > answered + 400)
        os.kill(running.pid("replica-1"), signal.SIGCONT)
        answered = load.answered
        await _until(lambda: load.answered > answered + 100)
    assert load.failures == []
    assert running.rows()["replica-1"].restarts == 0


async def test_a_rolling_restart_fails_no_request(running: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """`recollect balance restart` replaces every replica under load, and says so."""
    before = {name: running.pid(name) for name in running.rows()}
    async with Load(running.port) as load:
        await _until(lambda: load.answered > 100)
        code = await asyncio.to_thread(restart, Config(home=running.home), as_json=True, timeout_s=60.0)
        answered = load.answered
        await _until(lambda: load.answered > answered + 100)
    running.remember()
    assert code == 0
    assert load.failures == []
    said = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in said["restarted"]] == ["replica-0", "replica-1", "replica-2"]
    for entry in said["restarted"]:
        assert entry["old_pid"] == before[entry["name"]]
        assert entry["new_pid"] == running.pid(entry["name"])
    assert running.pid("nginx-0") == before["nginx-0"]


def test_without_any_replica_lists_come_from_the_static_file(
    running: Installation, wait_until: Callable[..., None]
) -> None:
    """200 and X-Degraded: static; events are refused with a reason to come back; it heals by itself."""
    # The supervisor is frozen, so that the replicas stay dead.
    running.signal(signal.SIGSTOP)
    for slot in range(3):
        os.kill(running.pid(f"replica-{slot}"), signal.SIGKILL)
    for path, method, kind, body in (
        ("/recommend/42", "GET", "text/plain; charset=utf-8", b"1,2,3\n"),
        ("/v1/recommendations/42?n=3", "GET", "application/json", b'{"items": [], "degraded": "static"}'),
        ("/v1/recommendations", "POST", "application/json", b'{"items": [], "degraded": "static"}'),
        ("/v1/popular", "GET", "application/json", b'{"items": [], "degraded": "static"}'),
    ):
        status, headers, said = running.get(path, method=method, body=b"{}" if method == "POST" else None)
        assert (status, said) == (200, body), path
        assert headers["X-Degraded"] == "static"
        assert headers["Content-Type"] == kind
    for path in ("/v1/events", "/v1/model", "/v1/items/1/similar"):
        status, headers, said = running.get(path, method="POST", body=b"{}")
        assert status in {502, 504}
        assert headers["Retry-After"] == "1"
        assert headers["Content-Type"] == "application/problem+json"
        assert json.loads(said)["status"] == status
    (running.home / "models" / "popular.json").unlink()
    status, headers, said = running.get("/v1/recommendations/42")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert json.loads(said)["type"] == "/problems/unavailable"
    assert running.get("/healthz")[0] == 200
    assert running.get("/readyz")[0] == 502
    running.signal(signal.SIGCONT)
    wait_until(
        lambda: running.get("/v1/recommendations/42")[1]["X-Degraded"] is None and _serves(running), timeout_s=20
    )


def test_a_post_whose_replica_dies_is_sent_to_another_with_the_same_key(running: Installation, tmp_path: Path) -> None:
    """The balancer makes the key where the client sends none, so that the second attempt can be told from a new one."""
    for headers in ({}, {"Idempotency-Key": "clients-own-key"}):
        trigger = tmp_path / f"died-{len(headers)}"
        status, _, said = running.get(
            "/v1/events", method="POST", body=b"{}", headers={**headers, "X-Die-Once": str(trigger)}
        )
        assert status == 200
        first, second = trigger.read_text(), json.loads(said)["key"]
        assert first == second
        assert second == headers.get("Idempotency-Key", second)
        assert 8 <= len(second) <= 64


def test_killing_nginx_master_leaves_no_worker_in_the_way(
    running: Installation, wait_until: Callable[..., None]
) -> None:
    """Orphaned workers would hold the port; they are gone before nginx starts again, within a second."""
    before = running.rows()["nginx-0"]
    assert before.pid is not None
    workers = set(group_members(before.pid, before.output)) - {before.pid}
    assert workers
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: running.rows()["nginx-0"].restarts == 1, timeout_s=1.0)
    wait_until(lambda: running.rows()["nginx-0"].state == "ready", timeout_s=5.0)
    assert running.get("/v1/model")[0] == 200
    assert group_members(before.pid, before.output) == []


# --- what nginx passes on, and what it answers itself


@pytest.mark.parametrize(
    "path",
    [
        "/recommend/a%2Fb",
        "/recommend/%2F%2F",
        "/recommend/a%20b%25?x=%2F",
        "/v1/recommendations/%E2%82%AC?n=5",
        "/v1/items/a%2Fb/similar",
        "/v1/popular?n=3",
        "/v1/model",
        "/openapi.json",
        "/docs",
        "/readyz",
    ],
)
def test_a_path_reaches_the_replica_byte_for_byte(shared: Installation, path: str) -> None:
    """Percent-encoding is the replica's to undo."""
    status, _, said = shared.get(path)
    assert status == 200
    assert json.loads(said)["raw_path"] == path


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/admin", "/v1/", "/v1/nothing", "/_static/popular.json", "/_problem/400", "/v1/eventsx"]
)
def test_what_is_no_route_is_not_passed_on(shared: Installation, path: str) -> None:
    """Replicas answer their operators on another port, and nginx's own files are not for asking."""
    status, headers, said = shared.get(path)
    assert status == 404
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(said)["type"] == "/problems/not-found"


def test_the_balancer_says_who_asks(shared: Installation) -> None:
    """What clients claim about themselves is overwritten."""
    headers = {"X-Forwarded-For": "6.6.6.6", "X-Request-Id": "mine"}
    said = json.loads(shared.get("/v1/model", headers=headers)[2])
    assert said["forwarded_for"] == "127.0.0.1"
    assert said["request_id"] != "mine"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(shared: Installation, chunked: bool) -> None:
    """64 KiB exactly is passed on; a byte more is 413, however it is sent."""
    body = b"x" * 65536
    assert json.loads(shared.get("/v1/events", method="POST", body=body)[2])["length"] == 65536
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/events", iter([body, b"x"]) if chunked else body + b"x", encode_chunked=chunked)
        answer = connection.getresponse()
        assert answer.status == 413
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(answer.read())["type"] == "/problems/too-large"


def test_an_encoded_body_is_refused(shared: Installation) -> None:
    """No compression bombs."""
    status, headers, said = shared.get("/v1/events", method="POST", body=b"x", headers={"Content-Encoding": "gzip"})
    assert status == 415
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(said)["type"] == "/problems/unsupported-body"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(80)) + b"\r\n", 400),
        (
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_what_is_not_http_as_we_read_it_is_a_problem_too(
    shared: Installation, request_bytes: bytes, status: int
) -> None:
    """nginx's own pages never show, not even for what it cannot parse."""
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        client.sendall(request_bytes)
        client.settimeout(10)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while b"}" not in answer and (piece := client.recv(65536)):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == status


# --- starting and stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_leaves_nothing(running: Installation, number: signal.Signals) -> None:
    """No process, port, pid file or temporary file; state and logs stay."""
    running.signal(number)
    status, _, errors = running.wait()
    assert (status, errors) == (0, "")
    assert running.survivors() == []
    assert [path.name for path in running.home.iterdir()] == ["models"]
    with socket.create_server(("127.0.0.1", running.port)):
        pass
    assert {path.name for path in (running.folder / "logs").iterdir()} >= {"nginx-0.access.log", "replica-0.out"}


def test_stopping_during_the_start_leaves_nothing(installation: Installation, wait_until: Callable[..., None]) -> None:
    """At whatever moment it comes."""
    installation.start()
    wait_until(lambda: "replica-0" in installation.rows())
    installation.remember()
    installation.signal(signal.SIGINT)
    status, _, errors = installation.wait()
    assert (status, errors) == (0, "")
    assert installation.survivors() == []
    assert [path.name for path in installation.home.iterdir()] == ["models"]


def test_a_second_one_is_refused(running: Installation) -> None:
    """In one sentence that names the first; which goes on."""
    assert running.process is not None
    second = Installation(running.folder, free_port())
    second.start()
    status, _, errors = second.wait()
    assert status == 1
    assert errors == f"recollect: Recollect is already running in {running.home} (process {running.process.pid})\n"
    assert running.get("/v1/model")[0] == 200
    assert len(running.rows()) == 4


def test_a_taken_port_is_one_sentence(installation: Installation) -> None:
    """Before anything is started."""
    with socket.create_server(("127.0.0.1", installation.port)):
        installation.start()
        status, _, errors = installation.wait()
    assert status == 1
    assert errors == (
        f"recollect: Something else listens on 127.0.0.1:{installation.port}; stop it or choose another port\n"
    )
    assert [path.name for path in installation.home.iterdir()] == ["models"]


def test_a_replica_that_cannot_start_is_one_sentence(installation: Installation) -> None:
    """With the last thing it said, and nothing left behind."""
    installation.program = (sys.executable, "-c", "raise SystemExit('no such model')")
    installation.start()
    status, _, errors = installation.wait()
    assert status == 1
    assert "did not come up; it said: no such model (all of it is in " in errors
    assert errors.count("\n") == 1
    assert [path.name for path in installation.home.iterdir()] == ["models"]


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_killed_supervisor_leaves_is_ended_by_the_next_start(running: Installation, frozen: bool) -> None:
    """The kernel asks its children to stop; those that cannot hear it are found and ended."""
    leftovers = dict(running.groups)
    if frozen:
        for leader in leftovers:
            os.killpg(leader, signal.SIGSTOP)
    running.signal(signal.SIGKILL)
    running.wait()
    if not frozen:
        deadline_s = time.monotonic() + 15
        while running.survivors():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    running.start_and_wait()
    assert [leader for leader, output in leftovers.items() if group_members(leader, output)] == []
    assert running.get("/v1/model")[0] == 200


def test_restarting_what_does_not_run_is_one_sentence(installation: Installation) -> None:
    """`recollect balance restart` without an installation."""
    program = (
        "import os, sys; from ops.balance import restart; from ops.refusal import told\n"
        "from service.config import from_env\nsys.exit(told(lambda: restart(from_env(os.environ))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "RECOLLECT_HOME": str(installation.home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"recollect: Nothing runs in {installation.home}; start it with: recollect up\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; as anybody else, every test is this")
def test_a_normal_user_can_run_it_all() -> None:
    """No part needs privileges."""
    nobody = 65534
    try:
        subprocess.run([sys.executable, "-c", "import ops.balance"], user=nobody, group=nobody, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("a normal user cannot read this Python or this checkout")
    with tempfile.TemporaryDirectory(prefix="recollect-") as name:
        folder = Path(name)
        made = new_installation(folder)
        made.user = nobody
        for path in (folder, *folder.rglob("*")):
            os.chown(path, nobody, nobody)
        try:
            made.start_and_wait()
            assert made.get("/v1/model")[0] == 200
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in made.survivors()} == {nobody}
            made.signal(signal.SIGTERM)
            assert made.wait()[0] == 0
            assert made.survivors() == []
        finally:
            made.end()


def _serves(installation: Installation) -> bool:
    return all(row.state == "ready" for row in installation.rows().values())


async def _until(predicate: Callable[[], object], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not predicate():  # noqa: ASYNC110  # what is waited for happens in other processes
            await asyncio.sleep(0.01)
