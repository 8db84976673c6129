"""A drill of several machines: nodes that serve lose their power under load, one after the other, and Redis' does.

Nodes of network namespaces: `one` and `two` serve behind an address that keepalived moves between them, `data` runs
Redis, or `data1` to `data3` run a Redis Cluster. The commands and files are those of docs/many-machines.md.

Invariant: a request failed if it was not answered as it should be with one retry, and an acknowledged event or list is
lost if the archive does not have it in the end, when every disk is back.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.drill.drill_load import DrillLoad
from ops.drill.oracle import Oracle
from ops.drill.system.waiting import poll_until
from ops.load.attack import ClientRules
from ops.load.population import Target
from ops.nodes.network import network
from ops.nodes.node import Node
from ops.nodes.node_journal import NodeJournal
from ops.nodes.nodes_report import Loss, NodesReport
from ops.nodes.redis_nodes import RedisNodes
from ops.nodes.serving_node import PORT, PRIVATE, ServingNode
from service.errors import RunError
from telemetry.archive.archive_reader import read
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import change_journal, query_catalogue

# An attempt is given longer than the address takes to move.
_RULES: Final = ClientRules(retries=1, deadline_s=4.0, attempt_s=1.5)
_CONNECTIONS: Final = 1024
_SEED: Final = 13
_VIRTUAL: Final = 100
_CATCH_UP_LIMIT_S: Final = 90.0
_ADDRESS_LIMIT_S: Final = 30.0
_POLL_S: Final = 0.05
SERVING: Final = ("one", "two")
DATA: Final = ("data",)
CLUSTER: Final = ("data1", "data2", "data3")


@dataclass(frozen=True)
class NodesPlan:
    """What a drill does.

    Attributes:
        models: A models directory with an active model.
        rate_rps: Requests per second.
        victims: The nodes that lose their power, in this order.
        cut: Whether they are cut off the network instead, and run on.
        quiet_s: Seconds of load before each loss, and at the end.
        off_s: Seconds that a node is off.
        replicas: Replicas of each serving node.
        settings: More settings of the serving nodes, by variable.
        redis: The nodes with Redis: `DATA`, or `CLUSTER` for a Redis Cluster.
        folder: Where the nodes' disks are and stay; None for a temporary directory.
    """

    models: Path
    rate_rps: float = 100.0
    victims: Sequence[str] = (*SERVING, *DATA)
    cut: bool = False
    quiet_s: float = 8.0
    off_s: float = 15.0
    replicas: int = 2
    settings: Mapping[str, str] = field(default_factory=dict)
    redis: Sequence[str] = DATA
    folder: Path | None = None


class NodesDrill:
    """One run.

    Args:
        plan: What it does.
        notify: Called with a sentence about each step.
    """

    def __init__(self, plan: NodesPlan, notify: Callable[[str], None]) -> None:
        self._plan = plan
        self._notify = notify
        self._serving: dict[str, ServingNode] = {}
        self._nodes: dict[str, Node] = {}
        self._shared = Path()
        self._virtual = ""
        self._redis = RedisNodes([])
        self._cut: set[str] = set()
        self._journal = NodeJournal()

    async def run(self) -> NodesReport:
        """Make the nodes, load them, take their power, and compare the archive with what was acknowledged.

        Raises:
            RunError: This machine cannot make nodes, or a part did not come up.
        """
        report = NodesReport()
        oracle = Oracle()
        async with self._installation():
            target = Target(self._virtual, PORT, "")
            # What happened before the load explains no failure of it.
            began_s = self._journal.begin()
            load = DrillLoad(
                target, self._shared / "models", self._plan.rate_rps, _SEED, began_s, oracle, _RULES, _CONNECTIONS
            )
            async with load:
                for victim in self._plan.victims:
                    await asyncio.sleep(self._plan.quiet_s)
                    report.losses.append(await self._lose(victim, oracle, began_s))
                await asyncio.sleep(self._plan.quiet_s)
            report.late_p99_ms = round((load.lag.percentile_s(0.99) or 0.0) * 1e3, 1)
            for loss in report.losses:
                loss.measure(load.samples, self._plan.off_s)
            report.take(load.samples, self._journal)
            self._notify("The load has ended; waiting until the archive has what was acknowledged.")
            await poll_until(lambda: asyncio.to_thread(self._clean, oracle), _CATCH_UP_LIMIT_S, 0.5)
            findings = oracle.check(self._archived())
        report.acknowledged = len(oracle)
        report.lost, report.duplicated = len(findings.lost), len(findings.duplicated)
        report.altered = len(findings.altered)
        for example in findings.examples:
            self._notify(example)
        return report

    @asynccontextmanager
    async def _installation(self) -> AsyncIterator[None]:
        """Start Redis and the serving nodes as docs/many-machines.md says."""
        plan = self._plan
        names = [*SERVING, *plan.redis]
        with network(len(names), names=names, folder=plan.folder, private=PRIVATE) as nodes:
            self._nodes = {node.name: node for node in nodes}
            self._redis = RedisNodes([self._nodes[name] for name in plan.redis])
            self._shared = nodes[0].folder.parent / "shared"
            self._shared.mkdir()
            (self._shared / "models").symlink_to(plan.models)
            self._prepare_archive()
            prefix = nodes[0].address.rpartition(".")[0]
            self._virtual = f"{prefix}.{_VIRTUAL}"
            for name in SERVING:
                others = [node for node in nodes if node.name in SERVING and node.name != name]
                self._serving[name] = ServingNode(
                    self._nodes[name],
                    others,
                    self._shared,
                    self._redis.url,
                    replicas=plan.replicas,
                    virtual=self._virtual,
                    journal=self._journal,
                    settings=plan.settings,
                    # Without keys the drill's own traffic needs none; the nodes reach nothing but each other.
                    arguments=("--insecure",),
                )
            await self._redis.start()
            for serving in self._serving.values():
                serving.start()
            for serving in self._serving.values():
                await serving.until_ready()
            for serving in self._serving.values():
                serving.claim_address()
                # The first node has it, whatever the others' speed.
                if not await self._until_holders(lambda names: names == [SERVING[0]], _ADDRESS_LIMIT_S):
                    raise RunError(f"{SERVING[0]} does not have the address {self._virtual}.")
            self._notify(f"Two nodes of {plan.replicas} replicas are ready behind {self._virtual}.")
            yield

    def _prepare_archive(self) -> None:
        """Make the archive as for machines that share it through a network file system."""
        archive = self._shared / "archive"
        archive.mkdir()
        Catalogue(archive).close()
        change_journal(archive, "rollback")

    async def _lose(self, name: str, oracle: Oracle, began_s: float) -> Loss:
        """Take a node's power, or cut it off, for a while, and wait until it is as before."""
        node = self._nodes[name]
        had_address, lease = name in await asyncio.to_thread(self._holders_of_address), self._lease()
        held_lease = lease[1].startswith(f"{name}:")
        killed_s = time.monotonic()
        # In threads, here and below: the load goes on meanwhile.
        if self._plan.cut:
            await asyncio.to_thread(node.cut)
            self._cut.add(name)
        else:
            await asyncio.to_thread(node.kill)
        loss = Loss(name, killed_s - began_s)
        held = ["the address"] * had_address + ["the archive's lease"] * held_lease
        how = "is cut off" if self._plan.cut else "has lost its power"
        self._say(name, f"{how}{', and with it ' + ' and '.join(held) if held else ''}")
        watching = [asyncio.sleep(max(0.0, killed_s + self._plan.off_s - time.monotonic()))]
        if had_address:
            watching.append(self._watch_address(loss, killed_s))
        if held_lease:
            watching.append(self._watch_lease(loss, killed_s, lease[0]))
        await asyncio.gather(*watching)
        if name in SERVING:
            # The load goes on, and the oracle belongs to this thread.
            findings = oracle.check(await asyncio.to_thread(self._archived))
            loss.on_its_disk = sum(at_s < loss.at_s for at_s in findings.lost)
        if self._plan.cut:
            await asyncio.to_thread(node.heal)
            self._cut.discard(name)
            # Both nodes had the address; one of them gives it up.
            await self._until_holders(lambda names: len(names) == 1, _ADDRESS_LIMIT_S)
        else:
            await asyncio.to_thread(node.start)
            if name not in SERVING:
                await asyncio.to_thread(self._redis.start_on, node)
            else:
                serving = self._serving[name]
                await asyncio.to_thread(serving.start)
                await serving.until_ready()
                await asyncio.to_thread(serving.claim_address)
        self._say(name, "is back")
        return loss

    def _say(self, name: str, what: str) -> None:
        self._journal.add(name, what)
        self._notify(f"{name} {what}.")

    async def _watch_address(self, loss: Loss, killed_s: float) -> None:
        if await self._until_holders(bool, self._plan.off_s):
            loss.address_s = time.monotonic() - killed_s

    async def _watch_lease(self, loss: Loss, killed_s: float, epoch: int) -> None:
        if await poll_until(lambda: self._lease()[0] > epoch, self._plan.off_s, _POLL_S):
            loss.lease_s = time.monotonic() - killed_s

    async def _until_holders(self, wanted: Callable[[list[str]], bool], limit_s: float) -> bool:
        """Wait until the nodes that have the address are as wanted; returns whether they are."""

        async def are_as_wanted() -> bool:
            return wanted(await asyncio.to_thread(self._holders_of_address))

        return await poll_until(are_as_wanted, limit_s, _POLL_S)

    def _holders_of_address(self) -> list[str]:
        """Return the nodes with the address, those that are cut off left out."""
        reached = {name: serving for name, serving in self._serving.items() if name not in self._cut}
        return [name for name, serving in reached.items() if serving.node.is_on and serving.has_address()]

    def _lease(self) -> tuple[int, str]:
        ((epoch, holder),) = query_catalogue(self._shared / "archive", "SELECT epoch, holder FROM lease")
        return int(epoch), str(holder)

    def _archived(self) -> list[bytes]:
        return list(read(self._shared / "archive"))

    def _clean(self, oracle: Oracle) -> bool:
        return not oracle.check(self._archived()).lost
