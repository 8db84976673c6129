"""`recollect up --candidates` on real parts: swaps of either service under load, and an outage of one of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loadbalancer import roster
from service.models.files import active_model, artefact
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot
from tests.integration.installation import DATA, Up
from tests.integration.load import Load, until

PARTS = ["redis", "consumer", "candidates-2", "candidates-3", "replica-0", "replica-1", "nginx-0", "nginx-1"]
# The tests are about what fails, and not about how fast a busy machine answers.
UNHURRIED = {
    "RECOLLECT_SPARES": "0",
    # A drain waits one second for idle connections and not five.
    "RECOLLECT_UPSTREAM_KEEPALIVE_S": "1",
    "RECOLLECT_CANDIDATES_TIMEOUT_S": "3",
    "RECOLLECT_LIST_TIMEOUT_MS": "4000",
    "RECOLLECT_LIST_BUDGET_MS": "9000",
}
EVENT = b'{"events": [{"type": "view", "user_id": "7", "item_id": "3"}]}'


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An installation of two replicas of each service, with a model that has factors."""
    before = {name: os.environ.get(name) for name in UNHURRIED}
    os.environ.update(UNHURRIED)
    try:
        options = ("--data", DATA, "--algorithm", "svd", "--force", "--candidates", "2")
        made = Up(tmp_path_factory.mktemp("services"), *options)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    try:
        made.wait_for("stop:")
        yield made
    finally:
        made.end()


def published(up: Up, change: Callable[[ModelSnapshot], ModelSnapshot]) -> str:
    """Publish a changed copy of the active version, and return its name."""
    models_dir = up.home / "models"
    version = active_model.version(models_dir, "ranking")
    assert version is not None
    made = change(artefact.load(models_dir / version))
    return publication.publish(models_dir, made, data={}, measures={})


def with_other_users(model: ModelSnapshot) -> ModelSnapshot:
    return replace(model, user_factors=np.roll(model.user_factors, 1, axis=0))


def with_other_items(model: ModelSnapshot) -> ModelSnapshot:
    return replace(model, item_factors=model.item_factors * np.float32(0.5), user_factors=model.user_factors * 2)


def activate(up: Up, version: str, *options: str) -> None:
    argv = [sys.executable, "-m", "ops", "models", "activate", version, *options]
    subprocess.run(argv, env=up.environ, check=True, capture_output=True)


def served(up: Up, path: str = "/v1/recommendations/1?n=5") -> Any:
    status, _, body = up.request("GET", path)
    assert status == 200, body
    return json.loads(body)


def candidates_model(up: Up) -> str:
    """Return the version that the candidates service answers with."""
    status, _, body = up.request("POST", "/v1/candidates", {"vector": [0.0] * 100})
    assert status == 200, body
    return str(json.loads(body)["model"])


def rows(up: Up) -> dict[str, roster.Row]:
    return {row.name: row for row in roster.read(up.home)}


async def test_both_services_stand_behind_one_port(up: Up) -> None:
    """Lists, items, events and candidates, each from its service; lists answer to events and to removed items."""
    assert list(rows(up)) == PARTS
    listed = served(up)
    assert (len(listed["items"]), listed["degraded"]) == (5, None)
    item = listed["items"][0]["item_id"]
    assert served(up, f"/v1/items/{item}")["item_id"] == item
    assert len(served(up, f"/v1/items/{item}/similar?n=3")["items"]) == 3
    event = {"type": "rating", "user_id": "1", "item_id": item, "value": 5.0}
    assert up.request("POST", "/v1/events", {"events": [event]})[0] == 202
    removed = listed["items"][1]["item_id"]
    assert up.request("DELETE", f"/v1/items/{removed}")[0] == 202
    await until(lambda: not {item, removed} & {one["item_id"] for _ in range(4) for one in served(up)["items"]})


async def test_the_ranking_model_is_swapped_under_load_while_candidates_keep_theirs(up: Up) -> None:
    """No request fails, and none is degraded."""
    before = served(up)["model"]
    new = published(up, with_other_users)
    async with Load(up.port, event=EVENT) as load:
        await load.more(50)
        await asyncio.to_thread(activate, up, new, "--role", "ranking")
        await until(lambda: {served(up)["model"] for _ in range(4)} == {new})
        await load.more(50)
    assert load.failures == []
    assert candidates_model(up) == before != new


async def test_both_services_swap_to_another_embedding_space_under_load(up: Up) -> None:
    """Each at its own pace, and no list is degraded in between."""
    new = published(up, with_other_items)
    async with Load(up.port, event=EVENT) as load:
        await load.more(50)
        await asyncio.to_thread(activate, up, new)
        await until(lambda: {candidates_model(up) for _ in range(4)} == {new})
        await until(lambda: {served(up)["model"] for _ in range(4)} == {new})
        await load.more(50)
    assert load.failures == []


async def test_all_candidates_replicas_are_killed_under_load(up: Up) -> None:
    """Answers go on, marked as degraded; items are served by the other service; then all is as before."""
    killed = {name: row for name, row in rows(up).items() if name.startswith("candidates-")}
    async with Load(up.port, event=EVENT, retries=1, takes_degraded=True) as load:
        await load.more(50)
        for _ in range(2):
            for row in rows(up).values():
                if row.name in killed and row.pid is not None:
                    os.kill(row.pid, signal.SIGKILL)
            assert served(up, "/v1/items/1")["item_id"] == "1"
            await load.more(30)
        await until(lambda: all(row.state == "ready" for row in rows(up).values()))
        await until(lambda: served(up)["degraded"] is None)
    assert load.failures == []
    assert load.degraded > 0
    assert {name: row.pid for name, row in rows(up).items() if name in killed} != {
        name: row.pid for name, row in killed.items()
    }


async def test_a_rolling_restart_takes_down_one_replica_of_either_service_at_a_time(up: Up) -> None:
    """No request fails, and none is degraded, since another replica finds the candidates."""
    async with Load(up.port, event=EVENT, retries=1) as load:
        argv = [sys.executable, "-m", "ops", "balance", "restart", "--json"]
        done = await asyncio.to_thread(subprocess.run, argv, env=up.environ, check=True, capture_output=True)
    assert load.failures == []
    restarted = {one["name"] for one in json.loads(done.stdout)["restarted"]}
    assert restarted == {name for name in PARTS if name.startswith(("replica-", "candidates-"))}


def test_every_served_list_can_be_made_again(up: Up) -> None:
    """Of either version and while candidates were away."""
    argv = [sys.executable, "-m", "ops", "replay", "--sample", "200", "--json"]
    up.request("GET", "/v1/recommendations/1")
    done = subprocess.run(argv, env=up.environ, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
