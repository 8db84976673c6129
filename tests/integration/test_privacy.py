"""What real processes write of a user: with a key never a caller's id, and no list of an erased user."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.generation.files.verification import users_of
from service.models.files import active_model
from service.models.publication.user_erasure import ModelUserEraser
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from telemetry.erasure.erasure import read_receipts
from telemetry.pseudonym import Pseudonymiser
from tests.integration.test_replica import Process, archived, get
from tests.support.generated_lists import generated_lists

Publish = Callable[[Path, ModelSnapshot], str]
Make = Callable[..., ModelSnapshot]
FreePort = Callable[[], int]
Wait = Callable[..., None]
Start = Callable[[str], tuple[Process, int]]
CANARY = "canary-user-7f3a@example.org"
KEY = b"k" * 32


@pytest.fixture
def start(tmp_path: Path, redis_server: Any, free_port: FreePort, wait_until: Wait) -> Iterator[Start]:
    """Return a function that starts a verb, waits until it is ready, and gives it with its port."""
    running: list[Process] = []

    def begin(verb: str) -> tuple[Process, int]:
        port = free_port()
        argv = ["serve", "--port", str(port)] if verb == "serve" else [verb]
        running.append(Process(tmp_path, redis_server.url, argv, free_port()))
        wait_until(running[-1].ready, 20, what=verb)
        return running[-1], port

    yield begin
    for process in running:
        if process.process.poll() is None:
            process.stop(signal.SIGKILL)
        assert process.process.stdout is not None
        process.process.stdout.close()


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pseudonym.key"
    path.touch(0o600)
    path.write_bytes(KEY)
    monkeypatch.setenv("RECOLLECT_PSEUDONYM_KEY_FILE", str(path))
    return path


def delete(port: int, path: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method="DELETE")
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def sources(port: int, user_id: str) -> set[str]:
    answer = json.loads(get(port, f"/v1/recommendations/{user_id}")[1])
    return {item["source"] for item in answer["items"]}


def written(*folders: Path) -> bytes:
    return b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("key_file")
def test_with_a_key_no_callers_id_is_written_anywhere_but_in_the_models(
    tmp_path: Path,
    redis_server: Any,
    start: Start,
    make_snapshot: Make,
    publish_snapshot: Publish,
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not in spool, Redis, archive or logs, whatever is asked; the user's pseudonym is."""
    monkeypatch.setenv("RECOLLECT_LOG_LEVEL", "debug")
    snapshot = make_snapshot()
    known = Vocabulary([CANARY, *snapshot.users.id_of[1:]])
    publish_snapshot(tmp_path / "var/models", replace(snapshot, users=known))
    consumer, _ = start("consume")
    replica, port = start("serve")
    row = {"type": "view", "user_id": CANARY, "item_id": "i1"}
    assert sources(port, CANARY) == {"personal"}
    assert get(port, f"/recommend/{CANARY}")[0] == 200
    assert get(port, "/v1/recommendations", {"user_id": CANARY, "include": ["i1", "i2"], "exclude": ["i1"]})[0] == 200
    assert get(port, "/v1/events", {"events": [row, {**row, "type": "rating", "value": 4}]})[0] == 202
    for path in (
        f"/v1/recommendations/{CANARY}?n=0",
        f"/v1/{CANARY}",
        f"/v1/users/{CANARY}?n=0",
        f"/recommend/{CANARY}%ff",
    ):
        assert get(port, path)[0] in {404, 405, 422}
    assert get(port, "/v1/events", {"events": [{**row, "type": CANARY}]})[0] == 422
    wait_until(lambda: len(archived(tmp_path)) >= 5, 20, what="the archive")
    status, receipt = delete(port, f"/v1/users/{CANARY}")
    assert (status, json.loads(receipt)["user_id"]) == (202, CANARY)
    assert sources(port, CANARY) == {"popular"}
    assert replica.stop() == 0
    erase_id = json.loads(receipt)["erase_id"]
    wait_until(lambda: erase_id in str(archived(tmp_path)), 20, what="the erase in the archive")
    assert consumer.stop() == 0
    pseudonym = Pseudonymiser(KEY).pseudonym(CANARY)
    kept = {name: written(tmp_path / name) for name in ("var/spool", "var/archive", "var/state", "logs")}
    kept["redis"] = written(redis_server.dir)
    assert pseudonym.encode() in kept["redis"]
    assert b"replica stopped" in kept["logs"]
    for name, content in kept.items():
        assert CANARY.encode() not in content, name
    assert pseudonym.encode() not in kept["logs"]


def test_an_erased_user_is_unknown_here_at_once_and_elsewhere_within_a_second_of_the_models(
    tmp_path: Path, start: Start, make_snapshot: Make, publish_snapshot: Publish, wait_until: Wait
) -> None:
    """The consumer's part for the models is done here by hand, so that the moment between is seen."""
    models_dir = tmp_path / "var/models"
    version = publish_snapshot(models_dir, make_snapshot())
    _, here = start("serve")
    _, elsewhere = start("serve")
    assert sources(here, "u1") == sources(elsewhere, "u1") == {"personal"}
    assert delete(here, "/v1/users/u1")[0] == 202
    assert sources(here, "u1") == {"popular"}
    assert sources(elsewhere, "u1") == {"personal"}
    eraser = ModelUserEraser(models_dir, Pseudonymiser())
    assert eraser.erase_now(["u1"]) == {"u1": 1}
    wait_until(lambda: sources(elsewhere, "u1") == {"popular"}, what="the other replica's new model")
    copy = active_model.version(models_dir)
    wait_until(lambda: json.loads(get(here, "/v1/model")[1])["version"] == copy, what="the new model here")
    assert sources(here, "u1") == {"popular"}
    assert sources(here, "u2") == sources(elsewhere, "u2") == {"personal"}
    environ = {**os.environ, "RECOLLECT_HOME": str(tmp_path / "var")}
    listed, shown = (
        subprocess.run([sys.executable, "-m", "ops", "models", *verb], env=environ, capture_output=True, timeout=60)
        for verb in (["list", "--json"], ["show"])
    )
    ((row),) = json.loads(listed.stdout)
    assert (row["version"], row["active"], row["n_users"]) == (copy, True, 6)
    assert json.loads(shown.stdout)["derived"]["from"] == version


def test_an_erase_reaches_archive_models_and_generated_lists_of_a_running_installation(
    tmp_path: Path, start: Start, make_snapshot: Make, publish_snapshot: Publish, wait_until: Wait
) -> None:
    """The receipt is done, every replica answers an unknown user, and no line, model or generated list has the id."""
    lists = generated_lists(tmp_path / "var/generated/lists", [CANARY, "u1"], "2026-11-21T12:00:00.000Z")
    snapshot = make_snapshot()
    known = Vocabulary([CANARY, *snapshot.users.id_of[1:]])
    publish_snapshot(tmp_path / "var/models", replace(snapshot, users=known))
    start("consume")
    _, here = start("serve")
    _, elsewhere = start("serve")
    for port in (here, elsewhere):
        assert sources(port, CANARY) == {"personal"}
        row = {"type": "view", "user_id": CANARY, "item_id": "i1"}
        assert get(port, "/v1/events", {"events": [row, {**row, "user_id": "u1"}]})[0] == 202
    # Replicas' events have no order among them; archived before the erase, these are counted by it.
    wait_until(lambda: len(archived(tmp_path)) >= 6, 20, what="the archive")
    erase_id = json.loads(delete(here, f"/v1/users/{CANARY}")[1])["erase_id"]

    archive = tmp_path / "var/archive"
    wait_until(lambda: any(told.done_at for told in read_receipts(archive)), 20, what="the receipt")
    wait_until(lambda: sources(elsewhere, CANARY) == {"popular"}, 2, what="the other replica's new model")
    (receipt,) = read_receipts(archive)
    assert (receipt.erase_id, receipt.events, receipt.models) == (erase_id, 4, 1)
    assert {line["user_id"] for line in archived(tmp_path) if line["class"] == "feedback"} == {"u1"}
    assert CANARY.encode() not in written(tmp_path / "var/models")
    assert users_of(lists / "shard-00000.parquet") == ["u1"]


@pytest.mark.parametrize("verb", ["serve", "train"])
def test_a_key_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, key_file: Path, verb: str) -> None:
    """Exit 2, naming the setting, before anything is opened or made."""
    key_file.chmod(0o644)
    environ = {**os.environ, "RECOLLECT_HOME": str(tmp_path / "var"), "RECOLLECT_LOGS": str(tmp_path / "logs")}
    argv = [sys.executable, "-m", "ops", verb, *(["--data", "demo:20x20x100"] if verb == "train" else [])]
    ended = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"recollect: RECOLLECT_PSEUDONYM_KEY_FILE: The pseudonym key file {key_file} has mode 0644. "
        "Only its owner may have access: chmod 600.\n"
    )
    assert not (tmp_path / "var").exists()
