"""The receipt of a real installation: while parts of it die, when all is archived, and after it was stopped."""

import json
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.integration.installation import DATA, Up


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("audited"), "--data", DATA)
    try:
        running.wait_for("is ready")
        yield running
    finally:
        running.end()


class _Load:
    """Asks and reports until it is stopped; counts what was answered 202."""

    def __init__(self, up: Up) -> None:
        self._up = up
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            event_id = uuid.uuid4().hex
            row = {"event_id": event_id, "type": "click", "user_id": "1", "item_id": "1"}
            try:
                self._up.request("GET", "/v1/recommendations/1")
                if self._up.request("POST", "/v1/events", {"events": [row]})[0] == 202:
                    self.acknowledged.append(event_id)
            except OSError:
                # A balancer's connection may end with it; what was not answered is not counted.
                continue


def audit(up: Up, *options: str) -> tuple[int, dict[str, Any]]:
    done = up.recollect("audit", "--json", *options)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


@pytest.mark.timeout(180)
def test_the_receipt_of_a_system_that_loses_parts(up: Up, wait_until: Callable[..., None]) -> None:
    """A replica, the consumer and Redis are killed under load: every audit passes, and every event is archived."""
    with _Load(up) as load:
        wait_until(lambda: len(load.acknowledged) > 20, 30)
        for name in ("replica-0", "consumer", "redis", "replica-1"):
            pid = up.row(name).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            code, report = audit(up)
            assert (code, report["breaches"], report["missing"], report["duplicated"]) == (0, [], 0, 0), report
            sent = len(load.acknowledged)
            wait_until(up.ready, 30)
            wait_until(lambda least=sent: len(load.acknowledged) > least + 20, 30)
    code, report = audit(up, "--wait", "30")
    assert (code, report["in_flight"]) == (0, 0), report
    assert report["archived"] >= 2 * len(load.acknowledged)
    exported = up.recollect("archive", "export", "--out", "-", "--class", "feedback").stdout.splitlines()
    archived = [json.loads(line)["event_id"] for line in exported]
    assert set(load.acknowledged) <= set(archived)
    assert len(archived) == len(set(archived))
    asked = up.recollect("archive", "query", "SELECT count(*) AS n FROM feedback", "--format", "json")
    assert json.loads(asked.stdout) == [{"n": len(archived)}]


@pytest.mark.timeout(120)
def test_the_receipt_of_a_stopped_system(up: Up) -> None:
    """Nothing runs; the same account, from the files alone."""
    before = audit(up)[1]
    assert up.stop()[0] == 0
    code, report = audit(up)
    assert (code, report["breaches"], report["in_flight"]) == (0, [], 0), report
    assert report["accepted"] >= before["accepted"]
    done = up.recollect("audit")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("OK: each of ")
    assert Path(up.home / "archive").is_dir()
