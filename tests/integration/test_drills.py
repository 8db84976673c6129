"""Short failure drills: under open-loop load no request fails, and no answered event is missing or duplicated.

The client records every answer and searches the archive for each.
"""

import asyncio
import json
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import pytest

from tests.integration.installation import DATA, Up

_RATE_RPS = 100


class RecordingClient:
    """Requests lists and sends events at a fixed rate, with one retry, and records every answer."""

    def __init__(self, up: Up) -> None:
        self._base = f"http://127.0.0.1:{up.port}"
        self._archive = up.home / "archive"
        self._random = random.Random(11)
        self.answered: set[str] = set()
        self.models: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.requests = 0

    async def during(self, fault: Callable[[], Awaitable[None]]) -> None:
        """Keep the load up from before a fault until a second after it."""
        over = asyncio.Event()

        async def inject() -> None:
            try:
                await fault()
            finally:
                over.set()

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            injecting = None
            end = float("inf")
            due = started = time.monotonic()
            while due < end:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._send(session))
                self.requests += 1
                due += 1 / _RATE_RPS
                if injecting is None and due - started > 1:
                    injecting = group.create_task(inject())
                if over.is_set() and end == float("inf"):
                    end = due + 1

    async def _send(self, session: aiohttp.ClientSession) -> None:
        user = str(self._random.randrange(1, 400))
        ids = [uuid.uuid4().hex for _ in range(self._random.randrange(1, 4))]
        rows = [{"event_id": i, "type": "click", "user_id": user, "item_id": "1"} for i in ids]
        is_event = self._random.random() < 0.2
        cause = ""
        for pause_s in (self._random.uniform(0.01, 0.05), 0):
            try:
                if is_event:
                    answer = session.post(f"{self._base}/v1/events", json={"events": rows}, timeout=_PATIENCE)
                else:
                    answer = session.get(f"{self._base}/v1/recommendations/{user}", timeout=_PATIENCE)
                async with answer as response:
                    body = json.loads(await response.read())
                if response.status in {200, 202}:
                    self._record(ids, body)
                    return
                cause = str(response.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                cause = type(error).__name__
            await asyncio.sleep(pause_s)
        self.failures[cause] += 1

    def _record(self, ids: list[str], body: dict[str, object]) -> None:
        if "accepted" in body:
            assert body["accepted"] == len(ids)
            self.answered.update(ids)
            return
        items = body["items"]
        assert isinstance(items, list)
        assert len(items) == 10
        self.models[str(body["model"])] += 1
        # A static list has no id, and no event: no replica saw the request.
        if body["recommendation_id"] is not None:
            self.answered.add(str(body["recommendation_id"]))

    def archived(self) -> Counter[str]:
        """Count the archive's events by id."""
        lines = [
            line
            for path in self._archive.glob("date=*/*.jsonl")
            for line in path.read_bytes().splitlines(keepends=True)
        ]
        # The consumer may be in the middle of its last line.
        records = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return Counter(record["event_id"] for record in records if record["class"] != "system")


_PATIENCE = aiohttp.ClientTimeout(total=2)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("drills")
    made = Up(folder, "--data", DATA)
    try:
        made.wait_for("stop:")
        yield made
    finally:
        made.end()


@pytest.fixture
def client(up: Up, wait_until: Callable[..., None]) -> RecordingClient:
    wait_until(up.ready, 20, what="every part to be ready")
    return RecordingClient(up)


def _pid(up: Up, name: str) -> int:
    pid = up.row(name).pid
    assert pid is not None
    return pid


async def test_a_model_swap_loses_nothing(
    up: Up, client: RecordingClient, await_until: Callable[..., Awaitable[None]]
) -> None:
    """Training publishes and activates; every answer comes from one of the two models, none fails."""

    async def train() -> None:
        done = await asyncio.to_thread(up.recollect, "train", "--data", DATA, "--algorithm", "popularity")
        assert done.returncode == 0, done.stderr
        active = (up.home / "models" / "ACTIVE").read_text().strip()
        await await_until(lambda: client.models[active] > 20, what="the new model to be served")

    await client.during(train)
    assert not client.failures
    assert len(client.models) == 2
    await _all_archived(client, await_until)


async def test_a_rolling_restart_loses_nothing(
    up: Up, client: RecordingClient, await_until: Callable[..., Awaitable[None]]
) -> None:
    """Every replica is a new process; all answered lists and events are archived."""
    before = {_pid(up, name) for name in ("replica-0", "replica-1")}

    async def restart() -> None:
        done = await asyncio.to_thread(up.recollect, "balance", "restart")
        assert done.returncode == 0, done.stderr

    await client.during(restart)
    assert not client.failures
    assert not before & {_pid(up, name) for name in ("replica-0", "replica-1")}
    await _all_archived(client, await_until)


async def test_a_killed_replica_fails_no_request(
    up: Up, client: RecordingClient, await_until: Callable[..., Awaitable[None]]
) -> None:
    """At most a few events in its memory are lost; the others are archived once."""

    async def kill() -> None:
        os.kill(_pid(up, "replica-0"), signal.SIGKILL)
        await await_until(lambda: not up.ready(), what="the death to be noticed")
        await await_until(up.ready, 20, what="the replica to come back")

    await client.during(kill)
    assert not client.failures
    # What can be lost is what came in the last moments before the kill: a linger, and a reply on its way.
    await await_until(lambda: len(client.answered - client.archived().keys()) <= 20, 20, what="the archive")
    assert max(client.archived().values()) == 1


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_redis_away_loses_nothing(
    up: Up, client: RecordingClient, await_until: Callable[..., Awaitable[None]], fault: str
) -> None:
    """Lists go on; what was answered during the fault is archived once Redis is back."""

    async def inject() -> None:
        pid = _pid(up, "redis")
        if fault == "killed":
            os.kill(pid, signal.SIGKILL)
            await await_until(lambda: not up.ready(), what="the death to be noticed")
            await await_until(up.ready, 20, what="Redis to come back")
            return
        os.kill(pid, signal.SIGSTOP)
        requests_before = client.requests
        try:
            # Longer than the deadline of a Redis command, 2 s.
            await await_until(
                lambda: client.requests > requests_before + 3 * _RATE_RPS, 20, what="requests without Redis"
            )
        finally:
            os.kill(pid, signal.SIGCONT)

    await client.during(inject)
    assert not client.failures
    await _all_archived(client, await_until)


async def _all_archived(client: RecordingClient, await_until: Callable[..., Awaitable[None]]) -> None:
    await await_until(
        lambda: client.answered <= client.archived().keys(), 30, what="every answered event in the archive"
    )
    assert max(client.archived().values()) == 1


def test_the_load_test_reports_whether_objectives_are_met(up: Up) -> None:
    """`recollect loadtest` against the whole installation: no failure; an impossible objective is exit 1."""
    url = f"http://127.0.0.1:{up.port}"
    good = up.recollect("loadtest", "--url", url, "--rate", "100", "--duration", "2", "--max-failures", "0", "--json")
    assert good.returncode == 0, good.stderr
    report = json.loads(good.stdout)
    assert report["failed"] == 0
    assert report["requests"] == 200
    assert set(report["latency_ms"]) >= {"p50", "p90", "p99", "p99_9", "max"}
    strict = up.recollect("loadtest", "--url", url, "--rate", "50", "--duration", "1", "--p99-ms", "0.001", "--json")
    assert strict.returncode == 1
    assert "p99" in strict.stderr
