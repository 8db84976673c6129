"""A replica and a consumer as processes, without a balancer, and clients that record their answers."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import aiohttp

from telemetry.archive.archive_reader import read
from telemetry.errors import ArchiveError

_LISTS_PER_S = 80
_REPORTS_PER_S = 20
# Longer than any answer should take and shorter than a fault, so that a wait for a disk fails the test.
_PATIENCE_S = 1.0


class Site:
    """The processes of one test, in a folder.

    Attributes:
        environ: What they are started with; may be changed before that.
        port: The replica's.
        admin_port: The replica's.
    """

    def __init__(self, folder: Path, redis_url: str, free_port: Callable[[], int]) -> None:
        self.home = folder / "var"
        self.logs = folder / "logs"
        self.port, self.admin_port, self.consumer_port = free_port(), free_port(), free_port()
        self.environ = {
            **os.environ,
            "RECOLLECT_HOME": str(self.home),
            "RECOLLECT_LOGS": str(self.logs),
            "RECOLLECT_REDIS_URL": redis_url,
        }
        self.running: list[subprocess.Popen[bytes]] = []
        self.replica_pid = 0

    def start_replica(self, output: int | IO[bytes] = subprocess.DEVNULL) -> None:
        argv = ["serve", "--slot", "0", "--port", str(self.port), "--admin-port", str(self.admin_port)]
        self.replica_pid = self._start(argv, output)

    def start_consumer(self, output: int | IO[bytes] = subprocess.DEVNULL, *, claim: bool = False) -> None:
        options = ["--claim"] if claim else []
        self._start(["consume", "--admin-port", str(self.consumer_port), *options], output)

    def _start(self, argv: list[str], output: int | IO[bytes]) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops", *argv], env=self.environ, stdout=output, stderr=subprocess.STDOUT
        )
        self.running.append(process)
        return process.pid

    def ready(self) -> bool:
        assert all(process.poll() is None for process in self.running)
        try:
            return all(self._asked(port, "/readyz") for port in (self.admin_port, self.consumer_port))
        except OSError:
            return False

    def metric(self, name: str, of_class: str | None = None) -> int:
        """Read a counter of the replica."""
        label = "" if of_class is None else f'{{class="{of_class}"}}'
        found = re.search(
            rf"^{re.escape(name + label)} ([0-9.e+]+)$", self._asked(self.admin_port, "/metrics"), re.MULTILINE
        )
        assert found is not None, name
        return int(float(found[1]))

    @staticmethod
    def _asked(port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def stop(self) -> list[int]:
        """Ask all to stop, the replica first, and return their statuses."""
        statuses = []
        for process in sorted(self.running, key=lambda one: one.pid != self.replica_pid):
            process.terminate()
            statuses.append(process.wait(timeout=30))
        self.running.clear()
        return statuses

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def archived(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in read(self.home / "archive")]
        except ArchiveError:
            return []

    def has_archived(self, event_ids: set[str]) -> bool:
        return event_ids <= {event["event_id"] for event in self.archived()}


class Visitors:
    """Ask for lists and report events at a steady rate while their context is open; nothing is tried twice.

    Attributes:
        lists: Ids of the lists that were answered.
        failures: What went wrong with lists, in words.
        accepted: Ids of events that were answered 202.
        refused: Reports that were answered 503 with Retry-After.
        wrong: Reports that were answered anything else.
    """

    def __init__(self, port: int, mark: str = "visit") -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._mark = mark
        self._over = asyncio.Event()
        self.lists: set[str] = set()
        self.failures: list[str] = []
        self.accepted: set[str] = set()
        self.refused = 0
        self.wrong: list[str] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE_S))
        self._rounds = [
            asyncio.create_task(self._keep_up(_LISTS_PER_S, self._list)),
            asyncio.create_task(self._keep_up(_REPORTS_PER_S, self._report)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._rounds)
        await self._session.close()

    async def _keep_up(self, rate: float, ask: Callable[[int], Any]) -> None:
        loop = asyncio.get_running_loop()
        due_s, number = loop.time(), 0
        async with asyncio.TaskGroup() as group:
            while not self._over.is_set():
                group.create_task(ask(number))
                number, due_s = number + 1, due_s + 1 / rate
                await asyncio.sleep(max(0.0, due_s - loop.time()))

    async def _list(self, number: int) -> None:
        try:
            async with self._session.get(f"{self._base}/v1/recommendations/{self._mark}-{number}?n=5") as answer:
                body = await answer.json(content_type=None)
                if answer.status == 200:
                    self.lists.add(body["recommendation_id"])
                else:
                    self.failures.append(f"{answer.status} {body}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(repr(error))

    async def _report(self, number: int) -> None:
        event_id = f"{self._mark}-event-{number}"
        event = {"event_id": event_id, "type": "click", "user_id": f"{self._mark}-{number}", "item_id": "i1"}
        try:
            async with self._session.post(f"{self._base}/v1/events", json={"events": [event]}) as answer:
                body = await answer.text()
                if answer.status == 202:
                    self.accepted.add(event_id)
                elif answer.status == 503 and int(answer.headers["Retry-After"]) >= 1:
                    self.refused += 1
                else:
                    self.wrong.append(f"{answer.status} {body}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.wrong.append(repr(error))


def counts(events: list[dict[str, Any]]) -> Counter[str]:
    """Count each archived event of people, by id."""
    return Counter(event["event_id"] for event in events if event["class"] != "system")
