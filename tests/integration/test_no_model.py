"""Replicas without a readable model behind a real nginx: half of them, and all."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.commands.balance import restart
from service.config import Config
from service.errors import ModelRefused
from service.models.publication.publication import activate
from service.models.snapshot import ModelSnapshot
from tests.integration.balanced import BalancedInstallation, new_installation

LISTS = (
    ("GET", "/recommend/u1", None),
    ("GET", "/v1/recommendations/u1", None),
    ("POST", "/v1/recommendations", b'{"user_id": "u1"}'),
    ("GET", "/v1/popular", None),
    ("GET", "/v1/items/i1/similar", None),
    ("GET", "/v1/model", None),
)

STATIC = {"/recommend/u1", "/v1/recommendations/u1", "/v1/popular"}


@pytest.fixture
def running(
    tmp_path: Path,
    redis_server: Any,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
) -> Iterator[BalancedInstallation]:
    """Two real replicas and an nginx, with a model."""
    made = new_installation(tmp_path)
    made.program = (sys.executable, "-m", "ops")
    made.settings |= {
        "RECOLLECT_REDIS_URL": redis_server.url,
        "RECOLLECT_REPLICAS": "2",
        "RECOLLECT_BALANCERS": "1",
        "RECOLLECT_SPARES": "0",
    }
    publish_snapshot(made.home / "models", make_snapshot(n_users=20))
    try:
        made.start_and_wait()
        yield made
    finally:
        made.end()


def asked(running: BalancedInstallation, times: int) -> Counter[tuple[str, int, str | None]]:
    """Ask for everything that needs a model, and count the answers."""
    counts: Counter[tuple[str, int, str | None]] = Counter()
    for _ in range(times):
        for method, path, body in LISTS:
            headers = {"Content-Type": "application/json"}
            status, answered, _ = running.get(path, method=method, body=body, headers=headers)
            counts[path, status, answered["X-Degraded"]] += 1
    return counts


def reported(running: BalancedInstallation) -> int:
    body = b'{"events": [{"type": "click", "user_id": "u1", "item_id": "i1"}]}'
    return running.get("/v1/events", method="POST", body=body, headers={"Content-Type": "application/json"})[0]


def readiness(running: BalancedInstallation) -> tuple[int, bool]:
    """Return the status of /readyz, and whether the answer has the reason."""
    status, _, output = running.get("/readyz")
    return status, b"No model is loaded yet." in output


async def test_replicas_without_a_model(
    running: BalancedInstallation,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Callable[[Path, ModelSnapshot], str],
    await_until: Callable[..., Any],
) -> None:
    """With one model no list fails and no replica restarts; with none, lists are static and feedback is accepted."""
    models = running.home / "models"
    version = (models / "ACTIVE").read_text().strip()
    damaged = models / version / "item_bias.bin"
    content = damaged.read_bytes()
    # A new file: what is mapped stays as it was.
    damaged.unlink()
    damaged.write_bytes(content[:-4])
    os.kill(running.pid("replica-0"), signal.SIGKILL)
    why = f"/readyz answers 503 (No model is loaded. {version}: item_bias has 1596 bytes, and the manifest says 1600.)"
    await await_until(lambda: running.rows()["replica-0"].waits_for == why, 30, what="the replica's word")
    waiting = running.pid("replica-0")
    assert set(asked(running, 10)) == {(path, 200, None) for _, path, _ in LISTS}
    assert {reported(running) for _ in range(20)} == {202}
    assert running.get("/readyz")[0] == 200
    with pytest.raises(ModelRefused, match=r"No replica was restarted.*item_bias has 1596 bytes"):
        await asyncio.to_thread(restart, Config(home=running.home))

    os.kill(running.pid("replica-1"), signal.SIGKILL)
    await await_until(lambda: running.rows()["replica-1"].waits_for == why, 30, what="the other one's word")
    answers = set(asked(running, 3))
    # A POST says more than the static list can answer, and the rest has no stand-in; 502 where nginx itself gives up.
    assert {path for path, status, degraded in answers if (status, degraded) == (200, "static")} == STATIC
    assert {(path, status // 100) for path, status, degraded in answers if degraded is None} == {
        (path, 5) for _, path, _ in LISTS if path not in STATIC
    }
    assert {reported(running) for _ in range(20)} == {202}
    assert readiness(running) == (503, True)
    os.kill(waiting, signal.SIGSTOP)
    try:
        for _ in range(3):
            began_s = time.monotonic()
            assert readiness(running) == (503, True)
            assert time.monotonic() - began_s < 1
    finally:
        os.kill(waiting, signal.SIGCONT)

    good = publish_snapshot(models, make_snapshot(n_users=20, seed=2))
    activate(models, good)
    await await_until(lambda: {row.state for row in running.rows().values()} == {"ready"}, 60, what="both")
    assert (running.pid("replica-0"), running.rows()["replica-0"].waits_for) == (waiting, "")
    assert set(asked(running, 3)) == {(path, 200, None) for _, path, _ in LISTS}
