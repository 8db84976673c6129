"""The drill of a pod's life: pods of the manifests start, drain, are killed and move with their volumes, under load.

Invariant: a client with one retry sees no failure at any step, and what was acknowledged is in the archive once,
whatever happened to the pod that accepted it.
"""

import asyncio
import http.client
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from ops.drill.drill_load import DrillLoad
from ops.drill.faults.promise import Figures, Promise
from ops.drill.figures import answer_figures
from ops.drill.oracle import Findings, Oracle
from ops.kubernetes.pod_installation import PodInstallation
from ops.kubernetes.running_pod import RunningPod
from ops.kubernetes.service_address import ServiceAddress
from ops.load.population import Target
from service.errors import RunError
from telemetry.archive.archive_reader import read

REPLICA: Final = ("StatefulSet", "recollect-replica")
EDGE: Final = ("Deployment", "recollect-edge")
CONSUMER: Final = ("StatefulSet", "recollect-consumer")
REDIS: Final = ("StatefulSet", "recollect-redis")
TRAINING: Final = ("CronJob", "recollect-training")

T = TypeVar("T")

_PROMISE: Final = Promise(text="No request fails with one retry.")
_READY_S: Final = 120.0
_EDGE_PORT: Final = 8080
# How late a node hears which pods serve a service.
_SERVICE_LAG_S: Final = 2.0
_ARCHIVED_S: Final = 60.0
_WAITING: Final = re.compile(r"^recollect_telemetry_unarchived_events (\S+)$", re.MULTILINE)
_USERS, _ITEMS, _EACH = 300, 200, 20


@dataclass(frozen=True)
class StepFigures:
    """One step: what was done, what the clients saw meanwhile, and a remark on what it showed."""

    name: str
    seconds: float
    figures: Figures
    remark: str


@dataclass(frozen=True)
class LifeFigures:
    """The whole drill.

    Attributes:
        steps: Each step, in order.
        findings: The comparison of what was acknowledged with the archive.
        restarts: How often a liveness probe would have restarted a pod.
        waiting: Events in the write-ahead log of a pod when the power of its node was cut; None without that step.
    """

    steps: tuple[StepFigures, ...]
    findings: Findings
    restarts: int
    waiting: int | None

    @property
    def failed(self) -> int:
        """Requests that failed with one retry."""
        return sum(sum(step.figures.failures.values()) for step in self.steps)

    @property
    def is_kept(self) -> bool:
        """Whether nothing failed and nothing acknowledged was lost, duplicated or altered."""
        return self.failed == 0 and self.restarts == 0 and self.findings.clean


class LifeDrill:
    """One drill, on an installation whose pods do not run yet.

    Args:
        installation: The installation.
        rate_rps: Requests per second.
        notify: Called with a line about each step.
    """

    def __init__(self, installation: PodInstallation, rate_rps: float, notify: Callable[[str], None]) -> None:
        self._installation = installation
        self._rate_rps = rate_rps
        self._notify = notify
        self._pods: dict[str, RunningPod] = {}
        self._restarts = 0
        self.waiting: int | None = None

    async def run(self, steps: Sequence[str]) -> LifeFigures:
        """Start everything, do the named steps under load, stop everything, and compare with the archive.

        Raises:
            RunError: A pod does not start or does not end, or the archive does not get everything in time.
        """
        since = (datetime.now(UTC) - timedelta(days=1)).date()
        await self._start()
        oracle, start_s = Oracle(), time.monotonic()
        models = self._installation.volumes.claim("recollect-models", self._pods["edge 0"].template.gid)
        done: list[tuple[str, float, float, str]] = []
        async with AsyncExitStack() as stack:
            addresses = partial(self._installation.ready_addresses, "recollect")
            service = ServiceAddress(addresses, _EDGE_PORT, _SERVICE_LAG_S)
            await stack.enter_async_context(service)
            target = Target("127.0.0.1", service.port, "", self._installation.api_key)
            load = await stack.enter_async_context(DrillLoad(target, models, self._rate_rps, 7, start_s, oracle))
            for name in steps:
                began_s = time.monotonic() - start_s
                remark = await getattr(self, f"_{name.replace(' ', '_')}")()
                ended_s = time.monotonic() - start_s
                done.append((name, began_s, ended_s, remark))
                self._notify(f"{name}: {remark} ({ended_s - began_s:.1f} s)")
        self._restarts += sum(pod.restarts for pod in self._pods.values())
        await self._stop()
        claim = self._installation.volumes.claim("home-recollect-consumer-0", 0)
        findings = await asyncio.to_thread(lambda: oracle.check(read(claim / "archive", first=since)))
        last = len(done) - 1
        figures = [
            StepFigures(
                name,
                ended_s - began_s,
                answer_figures(
                    [
                        sample
                        for sample in load.samples
                        if (number == 0 or sample.at_s >= began_s) and (number == last or sample.at_s < ended_s)
                    ],
                    _PROMISE,
                ),
                remark,
            )
            for number, (name, began_s, ended_s, remark) in enumerate(done)
        ]
        return LifeFigures(tuple(figures), findings, self._restarts, self.waiting)

    async def _start(self) -> None:
        """Start Redis, the consumer, a first training, two replicas and the edge, as an operator's first `apply`."""
        installation = self._installation
        self._pods["redis"] = await _in_thread(installation.start, *REDIS)
        self._pods["consumer"] = await _in_thread(installation.start, *CONSUMER)
        await _ready(self._pods.values())
        _write_data(installation.volumes.claim("recollect-data", self._pods["consumer"].template.gid))
        job = await _in_thread(lambda: installation.start(*TRAINING, more=("--algorithm", "popularity", "--force")))
        if (code := await _in_thread(installation.wait, job, _READY_S)) != 0:
            raise RunError(f"The training ended with {code}: {job.output.read_text()[-1000:]}")
        for number in (0, 1):
            self._pods[f"replica {number}"] = await _in_thread(installation.start, *REPLICA, number)
        self._pods["edge 0"] = await _in_thread(installation.start, *EDGE)
        await _ready(self._pods.values())
        self._notify("Redis, consumer, two replicas and the edge run; a model is served.")

    async def _quiet(self) -> str:
        await asyncio.sleep(3.0)
        return "nothing happens"

    async def _scale_up(self) -> str:
        """Start a third replica."""
        await self._begin("replica 2", REPLICA, 2)
        return "replica 2 starts and is ready"

    async def _drain(self) -> str:
        """Delete replica 0 in order, as a rolling update or the draining of a node does, and start it elsewhere."""
        took_s = await self._end("replica 0")
        await self._begin("replica 0", REPLICA, 0)
        return f"replica 0 ended {took_s:.1f} s after its deletion, and is ready on another node"

    async def _kill(self) -> str:
        """Kill replica 1 at once, and start it elsewhere with its volume."""
        await self._forget("replica 1", self._installation.kill)
        await self._begin("replica 1", REPLICA, 1)
        return "replica 1 was killed, and is ready on another node with its volume"

    async def _lose_a_node(self) -> str:
        """Cut the power of replica 0's node while Redis is away: its events are on its volume alone."""
        await self._forget("redis", self._installation.kill)
        await asyncio.sleep(1.0)
        self.waiting = await _in_thread(_unarchived, self._pods["replica 0"])
        await self._forget("replica 0", self._installation.lose)
        await self._begin("redis", REDIS, 0)
        # As long as Kubernetes needs to know that a node is gone, in a drill that does not wait for minutes.
        await asyncio.sleep(2.0)
        await self._begin("replica 0", REPLICA, 0)
        return f"replica 0's node was lost with {self.waiting} events on its volume, which another node has now"

    async def _move_the_consumer(self) -> str:
        """Kill the consumer, and start it elsewhere with the archive's volume."""
        await self._forget("consumer", self._installation.kill)
        await self._begin("consumer", CONSUMER, 0)
        return "the consumer was killed, and goes on with its archive on another node"

    async def _replace_the_edge(self) -> str:
        """Start another edge, then delete the first in order, as a rolling update of the Deployment does."""
        await self._begin("edge 1", EDGE, 1)
        took_s = await self._end("edge 0")
        return f"another edge is ready, and the first ended {took_s:.1f} s after its deletion"

    async def _scale_down(self) -> str:
        """Delete the third replica in order."""
        took_s = await self._end("replica 2")
        return f"replica 2 ended {took_s:.1f} s after its deletion"

    async def _stop(self) -> None:
        """Wait until everything is archived, then delete every pod in order: clients first, Redis last."""
        replicas = [pod for name, pod in self._pods.items() if name.startswith("replica")]
        deadline_s = time.monotonic() + _ARCHIVED_S
        while left := [pod.name for pod in replicas if await _in_thread(_unarchived, pod) != 0]:
            if time.monotonic() > deadline_s:
                raise RunError(f"After {_ARCHIVED_S:g} s events of {', '.join(left)} are not in the archive.")
            await asyncio.sleep(0.2)
        await asyncio.gather(*(self._end(name) for name in list(self._pods) if name.startswith(("edge", "replica"))))
        await self._end("consumer")
        await self._end("redis")

    async def _begin(self, name: str, workload: tuple[str, str], number: int) -> None:
        self._pods[name] = await _in_thread(self._installation.start, *workload, number)
        await _ready([self._pods[name]])

    async def _end(self, name: str) -> float:
        pod = self._pods.pop(name)
        self._restarts += pod.restarts
        return await _in_thread(self._installation.stop, pod)

    async def _forget(self, name: str, end: Callable[[RunningPod], None]) -> None:
        pod = self._pods.pop(name)
        self._restarts += pod.restarts
        await _in_thread(end, pod)


ALL_STEPS: Final = (
    "quiet",
    "scale up",
    "drain",
    "kill",
    "lose a node",
    "move the consumer",
    "replace the edge",
    "scale down",
)


def _in_thread(function: Callable[..., T], *arguments: object) -> Awaitable[T]:
    return asyncio.to_thread(function, *arguments)


async def _ready(pods: Iterable[RunningPod]) -> None:
    await asyncio.gather(*(_in_thread(pod.wait_ready, _READY_S) for pod in pods))


def _unarchived(pod: RunningPod) -> int | None:
    """Return how many accepted events of a replica are not in the archive; None if it does not answer."""
    try:
        connection = http.client.HTTPConnection(pod.node.address, 8091, timeout=2)
        try:
            connection.request("GET", "/metrics")
            found = _WAITING.search(connection.getresponse().read().decode())
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None
    return None if found is None else int(float(found[1]))


def _write_data(folder: Path) -> None:
    """Write ratings, for the first training."""
    rng = random.Random(11)  # noqa: S311 - repeatable, no secret
    rows = ["user,item,rating"]
    for user in range(1, _USERS + 1):
        rows += [f"{user},{item},{rng.randint(1, 5)}" for item in rng.sample(range(1, _ITEMS + 1), _EACH)]
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
