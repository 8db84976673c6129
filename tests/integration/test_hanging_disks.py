"""Disks that hang: only the work that needs them waits; with real processes and a file system that can hang."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.models.snapshot import ModelSnapshot
from service.security.api_key import new_key
from service.security.key_file import KeyFile
from tests.integration.balanced import new_installation
from tests.integration.filesystem import FileSystem
from tests.integration.lone_replica import Site

Until = Callable[..., Awaitable[None]]
Publish = Callable[[Path, ModelSnapshot], str]


@pytest.fixture
def site(
    tmp_path: Path,
    redis_server: Any,
    free_port: Callable[[], int],
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Publish,
) -> Iterator[Site]:
    """A replica and a consumer that are not started, with a model."""
    made = Site(tmp_path, redis_server.url, free_port)
    publish_snapshot(made.home / "models", make_snapshot(n_users=20))
    yield made
    made.end()


def ask(
    port: int, path: str, *, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if body.startswith(b"{") else {"text": body.decode()}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def event(number: int) -> dict[str, Any]:
    return {"events": [{"event_id": f"hanging-{number:04d}", "type": "click", "user_id": "u1", "item_id": "i1"}]}


async def test_the_model_store_hangs(
    tmp_path: Path, site: Site, make_snapshot: Callable[..., ModelSnapshot], publish_snapshot: Publish,
    await_until: Until,
) -> None:  # fmt: skip
    """Lists come from the loaded model with a degradation level, feedback is accepted, and both processes stop.

    Before that, every route, a swap and an erasure show that the loops of both touch no disk at all.
    """
    models = site.home / "models"
    disk = FileSystem(tmp_path / "control", models)
    site.environ |= disk.environ
    site.start_consumer()
    site.start_replica()
    await await_until(lambda: asyncio.to_thread(site.ready), 30, what="the site")
    loops = [process.pid for process in site.running]
    disk.watch()
    second = publish_snapshot(models, make_snapshot(n_users=20, seed=2))
    await await_until(lambda: ask(site.port, "/v1/model")[1]["version"] == second, what="the swap")
    for path in ("/recommend/u1", "/v1/popular", "/v1/items/i1/similar", "/readyz", "/openapi.json", "/docs", "/x"):
        ask(site.port, path)
    for port in (site.admin_port, site.consumer_port):
        ask(port, "/metrics")
    assert ask(site.port, "/v1/events", method="POST", body=event(1))[0] == 202
    assert ask(site.port, "/v1/users/u7", method="DELETE")[0] == 202
    await await_until(lambda: ask(site.port, "/v1/model")[1]["version"] != second, 30, what="the erasure")
    await await_until(lambda: site.has_archived({"hanging-0001"}), 30, what="the archive")
    assert disk.calls(*loops) == set()

    disk.hang()
    assert ask(site.port, "/v1/users/u8", method="DELETE")[0] == 202
    await await_until(lambda: ask(site.port, "/v1/recommendations/u1")[1]["degraded"] == "stale_model", 20)
    status, answer = ask(site.port, "/v1/recommendations/u1")
    assert (status, {item["source"] for item in answer["items"]}) == (200, {"personal"})
    assert ask(site.port, "/v1/events", method="POST", body=event(2))[0] == 202
    assert ask(site.admin_port, "/readyz") == (200, {"text": "ready\n"})
    await await_until(lambda: site.has_archived({"hanging-0002"}), 30, what="the archive")
    assert disk.calls(*loops) == set()
    # Their loops end first; what the replica notes of its end then is the last thing that it does.
    assert set(await asyncio.to_thread(site.stop)) == {0}


async def test_a_replica_whose_model_store_hangs_at_its_start_accepts_feedback(
    tmp_path: Path, site: Site, await_until: Until
) -> None:
    """It reports the reason, lists go to other replicas, and it serves when the store is back."""
    disk = FileSystem(tmp_path / "control", site.home / "models")
    site.environ |= disk.environ
    disk.hang()
    site.start_consumer()
    site.start_replica()
    waiting = f"No model is loaded. The model store {site.home / 'models'} does not answer.\n"
    await await_until(lambda: _readiness(site.admin_port) == (503, waiting), 30, what="the replica's word")
    status, answer = ask(site.port, "/v1/recommendations/u1")
    assert (status, answer["detail"]) == (503, "No model is loaded yet.")
    assert ask(site.port, "/readyz")[1]["detail"] == "No model is loaded yet."
    assert ask(site.port, "/v1/events", method="POST", body=event(1))[0] == 202
    disk.heal()
    await await_until(lambda: _readiness(site.admin_port)[0] == 200, 30, what="the model")
    await await_until(
        lambda: ask(site.port, "/v1/recommendations/u1")[1]["degraded"] is None, what="the degradation level"
    )
    assert ask(site.port, "/v1/recommendations/u1")[1]["items"][0]["source"] == "personal"
    assert set(await asyncio.to_thread(site.stop)) == {0}


def test_up_reports_a_hanging_model_store(
    tmp_path: Path, free_port: Callable[[], int], make_snapshot: Callable[..., ModelSnapshot], publish_snapshot: Publish
) -> None:
    """It ends with a sentence, and leaves nothing behind."""
    home = tmp_path / "home"
    publish_snapshot(home / "models", make_snapshot(n_users=20))
    disk = FileSystem(tmp_path / "control", home / "models")
    disk.hang()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RECOLLECT_")},
        "RECOLLECT_FILE": "none",
        "RECOLLECT_HOME": str(home),
        "RECOLLECT_MODEL_LOAD_TIMEOUT_S": "1",
        **disk.environ,
    }
    done = subprocess.run(
        [sys.executable, "-m", "ops", "up", "--port", str(free_port())],
        env=environ,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"{home / 'models'} was not read within 1 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "run").exists()


def _readiness(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


async def test_the_disk_of_keys_and_the_security_log_hangs(tmp_path: Path, site: Site, await_until: Until) -> None:
    """Keys stay in force and lists are answered; an erase, which cannot be logged, is refused at once."""
    security = site.home / "security"
    with KeyFile(security).edit() as keys:
        text, record = new_key(("admin",), now_s=time.time())
        keys.append(record)
    disk = FileSystem(tmp_path / "control", security)
    site.environ |= disk.environ
    site.start_consumer()
    site.start_replica()
    await await_until(lambda: asyncio.to_thread(site.ready), 30, what="the site")
    loops = [process.pid for process in site.running]
    disk.watch()
    key = {"X-API-Key": text}
    assert ask(site.port, "/v1/users/u7", method="DELETE", headers=key)[0] == 202
    disk.hang()
    for _ in range(3):
        assert ask(site.port, "/v1/users/u8", method="DELETE", headers=key)[0] == 503
    assert ask(site.port, "/v1/recommendations/u1", headers=key)[0] == 200
    assert ask(site.port, "/v1/recommendations/u1")[0] == 401
    assert ask(site.admin_port, "/readyz") == (200, {"text": "ready\n"})
    assert disk.calls(*loops) == set()
    disk.heal()
    await await_until(lambda: ask(site.port, "/v1/users/u8", method="DELETE", headers=key)[0] == 202, 20)
    assert disk.calls(*loops) == set()
    assert set(await asyncio.to_thread(site.stop)) == {0}


async def test_the_supervisors_disk_hangs(tmp_path: Path, await_until: Until) -> None:
    """A killed replica is still restarted; the roster is written when the disk is back."""
    made = new_installation(tmp_path)
    disk = FileSystem(tmp_path / "control", made.home / "run")
    made.settings |= disk.environ
    try:
        await asyncio.to_thread(made.start_and_wait)
        assert made.process is not None
        disk.watch()
        before = made.rows()["replica-1"]
        assert before.pid is not None
        assert before.admin_port is not None
        running = {
            port: _process(port) for row in made.rows().values() if (port := row.admin_port) and row.port is None
        }
        disk.hang()
        made.signal(signal.SIGUSR1)
        await await_until(
            lambda: all(_process(port) not in {"", old} for port, old in running.items()), 60, what="all replicas anew"
        )
        assert made.rows()["replica-1"] == before
        disk.heal()
        await await_until(lambda: made.rows()["replica-1"].pid != before.pid and made.rows()["replica-1"].restarts == 1)
        touched = disk.calls(made.process.pid)
        # Starting a process reads its program and opens its output; nothing else may wait for a disk.
        assert {where for _, where in touched if not where.startswith(str(tmp_path / "logs"))} == set()
        made.signal(signal.SIGTERM)
        assert (await asyncio.to_thread(made.wait))[0] == 0
    finally:
        await asyncio.to_thread(made.end)


def _process(admin_port: int | None) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/healthz", timeout=5) as answer:
            return str(answer.headers["X-Process"])
    except OSError:
        return ""
