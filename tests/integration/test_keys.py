"""API keys on a running replica: created, used, revoked, and a lost key file."""

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
from tests.integration.test_replica import Process, get

# A key is to be live, and dead, within a second.
LIVE_WITHIN_S = 1.0


@pytest.fixture
def replica(
    tmp_path: Path,
    redis_server: Any,
    free_port: Callable[[], int],
    wait_until: Callable[..., None],
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> Iterator[int]:
    """The port of a running replica."""
    publish_snapshot(tmp_path / "var" / "models", make_snapshot(n_items=60))
    port = free_port()
    process = Process(tmp_path, redis_server.url, ["serve", "--port", str(port)], free_port())
    wait_until(process.ready, 20, what="the replica")
    yield port
    process.stop(signal.SIGKILL)
    assert process.process.stdout is not None
    process.process.stdout.close()


def recollect(home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "RECOLLECT_HOME": str(home / "var"), "RECOLLECT_LOGS": str(home / "logs")}
    return subprocess.run([sys.executable, "-m", "ops", *argv], env=environ, capture_output=True, text=True, timeout=60)


def ask(port: int, key: str, path: str = "/v1/popular", method: str = "GET") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", method=method, headers={"Authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_new_and_revoked_keys_are_in_force_within_a_second(
    replica: int, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """No restart is needed. The security log names the key of an erase, and not the user."""
    assert get(replica, "/v1/popular")[0] == 200
    shop = json.loads(recollect(tmp_path, "keys", "create", "--scope", "recommend", "--json").stdout)
    wait_until(lambda: get(replica, "/v1/popular")[0] == 401, LIVE_WITHIN_S, what="the replica to ask for keys")
    assert ask(replica, shop["key"])[0] == 200
    assert [get(replica, path)[0] for path in ("/healthz", "/readyz", "/openapi.json", "/docs")] == [200] * 4
    status, problem = ask(replica, shop["key"], "/v1/users/u1", "DELETE")
    assert (status, problem["type"]) == (403, "/problems/forbidden")

    clerk = json.loads(recollect(tmp_path, "keys", "create", "--scope", "erase", "--json").stdout)
    wait_until(lambda: ask(replica, clerk["key"])[0] == 403, LIVE_WITHIN_S, what="the second key")
    status, receipt = ask(replica, clerk["key"], "/v1/users/u1", "DELETE")
    assert status == 202
    assert recollect(tmp_path, "keys", "revoke", shop["id"]).returncode == 0
    wait_until(lambda: ask(replica, shop["key"])[0] == 401, LIVE_WITHIN_S, what="the revoked key to be refused")

    (path,) = (tmp_path / "var" / "security").glob("log-*.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(entry["what"], entry["key"]) for entry in entries] == [
        ("key_create", shop["id"]),
        ("key_create", clerk["id"]),
        ("erase", clerk["id"]),
        ("key_revoke", shop["id"]),
    ]
    assert entries[2]["erase_id"] == receipt["erase_id"]
    assert "u1" not in path.read_text()

    # Whatever becomes of the file, what asks for keys goes on asking, and a replica that starts does not serve.
    (tmp_path / "var" / "security" / "keys.json").unlink()
    log = tmp_path / "logs" / "replica-0.log"
    wait_until(lambda: "key file not in force" in log.read_text(), LIVE_WITHIN_S * 5, what="the complaint")
    assert get(replica, "/v1/popular")[0] == 401
    assert ask(replica, clerk["key"])[0] == 403
    refused = recollect(tmp_path, "serve", "--port", "1", "--slot", "7")
    assert refused.returncode == 1
    assert "keys.json is missing, but keys were made here" in refused.stderr


@pytest.mark.parametrize("verb", ["up", "balance", "serve"])
def test_no_part_listens_beyond_this_machine_without_keys(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the command that makes a key and the effect of --insecure; no part is started."""
    monkeypatch.setenv("RECOLLECT_HOST" if verb == "serve" else "RECOLLECT_BALANCER_HOST", "0.0.0.0")
    refused = recollect(tmp_path, verb)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "can be reached from other machines, and there are no API keys" in refused.stderr
    assert "recollect keys create" in refused.stderr
    assert "--insecure, which lets every client" in refused.stderr
    assert list((tmp_path / "var").glob("*")) == []
