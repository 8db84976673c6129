"""`recollect up` on real parts: the first start, the restart of every part, a rolling restart, and the stop."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import stat
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from loadbalancer import roster
from tests.integration.installation import DATA, Up

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["redis", "consumer", "replica-0", "replica-1", "nginx-0", "nginx-1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Up]:
    """An installation that trained its first model on the demo data.

    The variable is for `serve` and `consume` run alone: these parts would otherwise not answer their supervisor.
    """
    made = Up(folder, "--data", DATA, settings={"RECOLLECT_ADMIN_HOST": "127.0.0.2"})
    try:
        made.wait_for("stop:")
        yield made
    finally:
        made.end()


def test_the_first_start_trains_starts_every_part_and_prints_the_next_command(up: Up) -> None:
    """The printed curl line works unchanged, for a user of the model."""
    printed = "".join(up.printed)
    assert f"Training a model on {DATA}" in printed
    assert f"Recollect is ready at http://127.0.0.1:{up.port}" in printed
    assert [row.name for row in roster.read(up.home)] == PARTS
    assert up.ready()
    line = re.search(rf"curl http://127\.0\.0\.1:{up.port}(/recommend/\S+)", printed)
    assert line is not None
    status, headers, body = up.request("GET", line.group(1))
    assert status == 200
    assert len(body.decode().strip().split(",")) == 20
    assert headers["X-Recommendation-Id"]
    listed = json.loads(up.request("GET", line.group(1).replace("/recommend/", "/v1/recommendations/"))[2])
    assert {item["source"] for item in listed["items"]} == {"personal"}


def test_nginx_serves_every_public_route(up: Up) -> None:
    """The metrics of a replica are not public."""
    event = {"type": "rating", "user_id": "1", "item_id": "2", "value": 4.0}
    assert up.request("POST", "/v1/events", {"events": [event]})[0] == 202
    assert up.request("POST", "/v1/recommendations", {"user_id": "1", "n": 3})[0] == 200
    for path in ("/v1/popular", "/v1/model", "/healthz", "/readyz", "/openapi.json", "/docs"):
        assert up.request("GET", path)[0] == 200, path
    assert up.request("GET", "/metrics")[0] == 404


def test_the_commands_of_the_readme_work(up: Up, wait_until: Callable[..., None]) -> None:
    """Its lines are answered as shown, the second list answers to the event, and the audit finds nothing missing."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    first = json.loads(up.request("GET", "/v1/recommendations/1?n=1")[2])["items"][0]["item_id"]
    # The smaller data of this test has other items.
    page = page.replace('"item_id": "997"', f'"item_id": "{first}"')
    lines = re.findall(r"^curl (.*)$", page.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) == 3
    listed: list[Any] = []
    for line in lines:
        words = shlex.split(line)
        path = next(word for word in words if word.startswith("http://")).removeprefix("http://127.0.0.1:8080")
        body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
        status, _, answer = up.request("GET" if body is None else "POST", path, body)
        assert status == (200 if body is None else 202)
        if body is not None:
            # Another replica than the one that took the event has a second for it.
            wait_until(
                lambda: first not in up.request("GET", "/recommend/1")[2].decode().strip().split(","),
                timeout_s=5.0,
                what="the event in the lists",
            )
        else:
            shown = re.findall(
                r'^[ {]*"(\w+)":|, "(\w+)":', page.partition("```json")[2].partition("```")[0], re.MULTILINE
            )
            listed.append(json.loads(answer))
            assert {name or later for name, later in shown} <= {*listed[-1], *listed[-1]["items"][0]}
    before, after = listed
    assert all(item["fields"]["title"] for item in (*before["items"], *after["items"]))
    assert before["items"][0]["item_id"] == first
    assert all(item["because"]["items"] for item in after["items"])
    audited = up.recollect("audit", "--wait", "30")
    assert audited.returncode == 0, audited.stdout


def test_the_examples_of_the_api_page_match_the_service(up: Up) -> None:
    """A list has the fields of the example, and its events are accepted."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed, events, *_ = (
        json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    answer = json.loads(up.request("GET", "/v1/recommendations/1")[2])
    assert list(answer) == list(listed)
    assert list(answer["items"][0]) == list(listed["items"][0])
    assert list(answer["freshness"]) == list(listed["freshness"])
    status, _, body = up.request("POST", "/v1/events", events)
    assert (status, json.loads(body)) == (202, {"accepted": 1, "durability": "disk"})


def test_no_other_user_can_reach_the_redis(up: Up) -> None:
    """It listens on a socket in a directory of mode 0700, and on no port."""
    row = up.row("redis")
    assert (row.host, row.port) == (str(up.home / "run" / "redis.sock"), None)
    assert stat.S_IMODE((up.home / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((up.home / "run" / "redis.sock").stat().st_mode) == 0o600
    assert psutil.Process(row.pid).net_connections("inet") == []
    with redis.Redis(unix_socket_path=row.host) as client:
        assert client.ping()


def test_an_event_reaches_the_archive(up: Up, wait_until: Callable[..., None]) -> None:
    """Replica, Redis, consumer and archive are connected."""
    event = {"event_id": "connected-parts", "type": "rating", "user_id": "1", "item_id": "2", "value": 4.0}
    assert up.request("POST", "/v1/events", {"events": [event]})[0] == 202
    wait_until(
        lambda: any("connected-parts" in path.read_text() for path in (up.home / "archive").rglob("*.jsonl")),
        what="the event in the archive",
    )


def test_an_item_change_reaches_every_replica(up: Up, wait_until: Callable[..., None]) -> None:
    """Through the archive and the feed: a new item is listed by its attributes, a removed one by none of them."""

    def of_each(path: str) -> list[Any]:
        urls = [f"http://127.0.0.1:{up.row(name).port}{path}" for name in ("replica-0", "replica-1")]
        answers = []
        for url in urls:
            with urllib.request.urlopen(url) as answer:
                answers.append(json.load(answer)["items"])
        return answers

    def is_listed(item_id: str) -> list[bool]:
        return [item_id in {item["item_id"] for item in items} for items in of_each("/v1/recommendations/1?n=500")]

    gone = of_each("/v1/recommendations/1?n=1")[0][0]["item_id"]
    record = {"title": "New", "attributes": {"genres": ["Comedy"], "year": 2020}}
    assert up.request("PUT", "/v1/items/brand-new", record)[0] == 202
    assert up.request("DELETE", f"/v1/items/{gone}")[0] == 202
    wait_until(lambda: all(is_listed("brand-new")), what="the new item in the lists of every replica")
    wait_until(lambda: not any(is_listed(gone)), what="the removed item to leave every replica")
    titled = of_each("/v1/popular?n=500&fields=title")
    shown = [[item for item in items if item["item_id"] == "brand-new"] for items in titled]
    assert [found[0]["fields"] for found in shown] == [{"title": "New"}] * 2
    assert up.recollect("items", "show", gone).returncode == 1
    assert up.request("PUT", f"/v1/items/{gone}", {})[0] == 202
    wait_until(lambda: all(is_listed(gone)), what="the item to come back")


@pytest.mark.parametrize("name", PARTS)
def test_every_killed_part_restarts_on_its_ports(up: Up, name: str, wait_until: Callable[..., None]) -> None:
    """It is restarted within a second, and every part is ready again."""
    before = up.row(name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: up.row(name).restarts == before.restarts + 1, timeout_s=1.0, what=f"{name} to start again")
    wait_until(up.ready, what="everything to be ready")
    after = up.row(name)
    assert after.pid != before.pid
    assert (after.host, after.port, after.admin_port) == (before.host, before.port, before.admin_port)
    wait_until(lambda: up.request("POST", "/v1/events", {"events": []})[0] in {202, 422})
    assert up.request("GET", "/recommend/1")[0] == 200


async def test_a_rolling_restart_under_load_fails_no_request(up: Up) -> None:
    """Clients do not retry; they reconnect when the server closes the connection."""
    before = {name: up.row(name).pid for name in PARTS}
    failures: list[str] = []
    answered = 0

    async def client() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        while not restarted.done():
            if reader.at_eof():
                reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
            try:
                writer.write(b"GET /v1/recommendations/1?n=5 HTTP/1.1\r\nHost: x\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                if not head.startswith(b"http/1.1 200") or b"x-degraded: static" in head:
                    failures.append(head.decode())
                answered += 1
            except (OSError, EOFError) as error:
                failures.append(repr(error))
                reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
            await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()

    restarted = asyncio.create_task(asyncio.to_thread(up.recollect, "balance", "restart", "--json"))
    await asyncio.gather(*(client() for _ in range(4)))
    done = await restarted
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {entry["name"] for entry in report["restarted"]} == {"replica-0", "replica-1"}
    assert failures == []
    assert answered > 200
    after = {name: up.row(name).pid for name in PARTS}
    assert {name for name in PARTS if after[name] != before[name]} == {"replica-0", "replica-1"}


def test_a_second_installation_in_a_home_is_refused(up: Up) -> None:
    """The error is one sentence with the pid of the first."""
    second = up.recollect("up", "--port", "1")
    assert second.returncode == 1
    assert second.stderr.startswith("recollect: Recollect is already running in ")
    assert f"(process {up.process.pid})" in second.stderr


def test_stopping_leaves_only_state_and_logs(up: Up, folder: Path) -> None:
    """No process, port, socket, pid or temporary file remains. Runs after the tests above, which share the fixture."""
    ports = [port for row in roster.read(up.home) for port in (row.port, row.admin_port) if port is not None]
    code, errors = up.stop()
    assert code == 0
    # Only the progress of the training was written.
    assert "recollect:" not in errors
    assert up.printed[-1] == "Stopped.\n"
    assert up.survivors() == []
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass
    assert not (up.home / "run").exists()
    assert {path.name for path in up.home.iterdir()} <= {"models", "spool", "archive", "state", "redis", "security"}
    assert {path.name for path in folder.iterdir()} == {"var", "logs"}


def test_a_warm_start_serves_the_active_model(up: Up, folder: Path) -> None:
    """It does not train. Runs after the one above stopped."""
    assert up.process.poll() is not None
    again = Up(folder)
    try:
        again.wait_for("stop:")
        assert "Training" not in "".join(again.printed)
        assert again.request("GET", "/recommend/1")[0] == 200
        assert again.stop(signal.SIGTERM) == (0, "")
        assert again.survivors() == []
    finally:
        again.end()


def test_data_that_cannot_be_read_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """The training prints the reason; no part was started."""
    made = Up(tmp_path, "--data", str(tmp_path / "absent"))
    try:
        out, err = made.process.communicate(timeout=60)
        assert made.process.returncode == 2
        assert err.count("\n") == 1
        assert "absent" in err
        assert "Recollect is ready" not in out
        assert not (made.home / "run").exists()
    finally:
        made.end()
