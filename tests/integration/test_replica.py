"""A real replica and a real consumer as processes, with a real Redis between them."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.models.snapshot import ModelSnapshot

Publish = Callable[[Path, ModelSnapshot], str]
Make = Callable[..., ModelSnapshot]
FreePort = Callable[[], int]
Wait = Callable[..., None]
Start = Callable[..., "Process"]
Serve = Callable[[int], tuple["Process", int]]


class Process:
    """One `python -m ops VERB`, with its admin port."""

    def __init__(self, home: Path, redis_url: str, verb: list[str], admin_port: int) -> None:
        self.admin_port = admin_port
        environ = {**os.environ, "RECOLLECT_HOME": str(home / "var"), "RECOLLECT_LOGS": str(home / "logs")}
        environ["RECOLLECT_REDIS_URL"] = redis_url
        argv = [sys.executable, "-m", "ops", *verb, "--admin-port", str(admin_port)]
        self.process = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.output()
        try:
            return get(self.admin_port, "/readyz")[0] == 200
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=15)

    def output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()


def get(port: int, path: str, data: Any = None) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json"}
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def start(tmp_path: Path, redis_server: Any) -> Iterator[Start]:
    running: list[Process] = []

    def begin(verb: list[str], admin_port: int) -> Process:
        running.append(Process(tmp_path, redis_server.url, verb, admin_port))
        return running[-1]

    yield begin
    for process in running:
        if process.process.poll() is None:
            process.stop(signal.SIGKILL)
        assert process.process.stdout is not None
        process.process.stdout.close()


@pytest.fixture
def serve(start: Start, free_port: FreePort, wait_until: Wait) -> Serve:
    def begin(slot: int) -> tuple[Process, int]:
        port = free_port()
        replica = start(["serve", "--slot", str(slot), "--port", str(port)], free_port())
        wait_until(replica.ready, 20, what="the replica")
        return replica, port

    return begin


def archived(home: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((home / "var/archive").glob("date=*/*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_state_and_logs_are_their_owners_alone(
    tmp_path: Path, redis_server: Any, free_port: FreePort, wait_until: Wait
) -> None:
    """Whatever the umask, and whichever command makes the folders first."""
    homes = {"made by serve", "made by consume", "made by train"}
    before = os.umask(0)
    try:
        started = [
            Process(tmp_path / "made by serve", redis_server.url, ["serve", "--port", str(free_port())], free_port()),
            Process(tmp_path / "made by consume", redis_server.url, ["consume"], free_port()),
        ]
        environ = {**os.environ, "RECOLLECT_HOME": str(tmp_path / "made by train" / "var")}
        train = [sys.executable, "-m", "ops", "train", "--data", "demo:60x40x900", "--algorithm", "popularity"]
        subprocess.run(train, env=environ, check=True, capture_output=True)
    finally:
        os.umask(before)
    try:
        wait_until(lambda: len(list(tmp_path.glob("made by */logs/*"))) == 2, 20, what="logs")
        wait_until(lambda: {path.parts[-3] for path in tmp_path.glob("*/var/*")} >= homes, 20, what="state")
        modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if not path.is_socket()}
    finally:
        for process in started:
            process.stop(signal.SIGKILL)
            process.process.communicate()
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_lists_and_feedback_are_archived_once(
    tmp_path: Path,
    start: Start,
    serve: Serve,
    make_snapshot: Make,
    publish_snapshot: Publish,
    free_port: FreePort,
    wait_until: Wait,
) -> None:
    """Lists and feedback of two replicas reach the archive, exactly once, also across a graceful restart of one."""
    publish_snapshot(tmp_path / "var/models", make_snapshot(n_users=20))
    consumer = start(["consume"], free_port())
    wait_until(consumer.ready, 20, what="the consumer")
    one, port_one = serve(0)
    _two, port_two = serve(1)
    expected = set()
    for port in (port_one, port_two):
        for user in range(10):
            status, body = get(port, f"/v1/recommendations/u{user}")
            assert status == 200
            expected.add(json.loads(body)["recommendation_id"])
        rows = [{"event_id": f"event-{port}-{n}", "type": "click", "user_id": "u1", "item_id": "i1"} for n in range(5)]
        assert get(port, "/v1/events", {"events": rows})[0] == 202
        expected |= {row["event_id"] for row in rows}
    # A client that retried elsewhere: the same event ids on the other replica.
    assert get(port_one, "/v1/events", {"events": rows})[0] == 202
    assert one.stop() == 0
    _again, port_again = serve(0)
    expected.add(json.loads(get(port_again, "/v1/recommendations/u1")[1])["recommendation_id"])
    wait_until(lambda: len(archived(tmp_path)) >= len(expected), 20, what="the archive")
    lines = archived(tmp_path)
    assert sorted(line["event_id"] for line in lines if line["class"] != "system") == sorted(expected)
    epochs = {(line["producer"], line["epoch"]) for line in lines}
    assert len(epochs) == 3
    for producer, epoch in epochs:
        numbers = sorted(line["seq"] for line in lines if (line["producer"], line["epoch"]) == (producer, epoch))
        assert numbers[0] == 1


@pytest.mark.parametrize("away", ["redis", "consumer"])
def test_lists_are_answered_without_a_part_and_events_are_archived_later(
    tmp_path: Path,
    redis_server: Any,
    start: Start,
    serve: Serve,
    make_snapshot: Make,
    publish_snapshot: Publish,
    free_port: FreePort,
    wait_until: Wait,
    away: str,
) -> None:
    """Every list is answered, marked after a while, and every event is archived once the part is back."""
    publish_snapshot(tmp_path / "var/models", make_snapshot())
    consumer = start(["consume"], free_port())
    wait_until(consumer.ready, 20, what="the consumer")
    _replica, port = serve(0)
    expected = []

    def ask() -> str | None:
        status, body = get(port, "/v1/recommendations/u1")
        assert status == 200
        answer = json.loads(body)
        expected.append(answer["recommendation_id"])
        degraded: str | None = answer["degraded"]
        return degraded

    wait_until(lambda: ask() is None, what="an answer with everything running")
    if away == "redis":
        redis_server.kill()
    else:
        consumer.stop(signal.SIGKILL)
    wait_until(lambda: ask() == "stale", 20, what="the mark of a degraded answer")
    assert get(port, "/v1/events", {"events": [{"type": "view", "user_id": "u", "item_id": "i"}]})[0] == 202
    if away == "redis":
        redis_server.start()
    else:
        start(["consume"], free_port())
    wait_until(lambda: ask() is None, 15, what="the mark to go")
    wait_until(lambda: len(archived(tmp_path)) >= len(expected) + 1, 20, what="the archive")
    served = [line["event_id"] for line in archived(tmp_path) if line["class"] == "served"]
    assert sorted(served) == sorted(expected)


def test_a_replica_without_a_model_waits_for_one(
    tmp_path: Path,
    start: Start,
    make_snapshot: Make,
    publish_snapshot: Publish,
    free_port: FreePort,
    wait_until: Wait,
) -> None:
    """Alive and not ready, until a model is activated."""
    port = free_port()
    replica = start(["serve", "--port", str(port)], free_port())
    wait_until(lambda: _alive(replica), 20, what="the process")
    assert get(replica.admin_port, "/readyz")[0] == 503
    assert get(port, "/v1/recommendations/u1")[0] == 503
    publish_snapshot(tmp_path / "var/models", make_snapshot())
    wait_until(replica.ready, what="readiness")
    assert get(port, "/v1/recommendations/u1")[0] == 200


def _alive(replica: Process) -> bool:
    try:
        return get(replica.admin_port, "/healthz")[0] == 200
    except OSError:
        return False


def test_telemetry_and_application_log_never_meet(
    tmp_path: Path,
    start: Start,
    serve: Serve,
    make_snapshot: Make,
    publish_snapshot: Publish,
    free_port: FreePort,
    wait_until: Wait,
) -> None:
    """No event, user or list in any log; no log line in spool or archive; and no file is open for both."""
    publish_snapshot(tmp_path / "var/models", make_snapshot())
    wait_until(start(["consume"], free_port()).ready, 20, what="the consumer")
    replica, port = serve(0)
    canary = "canary-user-7f3a"
    identifier = json.loads(get(port, f"/v1/recommendations/{canary}")[1])["recommendation_id"]
    assert get(port, "/v1/events", {"events": [{"type": "view", "user_id": canary, "item_id": "i"}]})[0] == 202
    wait_until(lambda: len(archived(tmp_path)) >= 2, 20, what="the archive")
    opened = {str(entry.readlink()) for entry in Path(f"/proc/{replica.process.pid}/fd").iterdir()}
    logs = {path for path in opened if path.startswith(str(tmp_path / "logs"))}
    assert len(logs) == 1
    assert not {path for path in opened if path.startswith(str(tmp_path / "var/spool"))} & logs
    assert replica.stop() == 0
    logged = b"".join(path.read_bytes() for path in (tmp_path / "logs").rglob("*") if path.is_file())
    assert b"replica stopped" in logged
    assert canary.encode() not in logged
    assert identifier.encode() not in logged
    kept = b"".join(
        path.read_bytes()
        for folder in ("spool", "archive")
        for path in (tmp_path / "var" / folder).rglob("*")
        if path.is_file()
    )
    assert canary.encode() in kept
    assert b"replica stopped" not in kept
    assert b"recollect.replica" not in kept


@pytest.mark.parametrize("taken", ["port", "admin port"])
def test_a_taken_port_is_refused_in_one_sentence(
    tmp_path: Path,
    start: Start,
    serve: Serve,
    make_snapshot: Make,
    publish_snapshot: Publish,
    free_port: FreePort,
    taken: str,
) -> None:
    """Exit 1, naming the address; no traceback."""
    publish_snapshot(tmp_path / "var/models", make_snapshot())
    first, port = serve(0)
    ports = (port, free_port()) if taken == "port" else (free_port(), first.admin_port)
    second = start(["serve", "--port", str(ports[0])], ports[1])
    assert second.process.wait(timeout=20) == 1
    number = ports[0] if taken == "port" else ports[1]
    assert second.output() == f"recollect: 127.0.0.1:{number} cannot be listened on: address already in use.\n"
