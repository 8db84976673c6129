"""A ranking service and a candidates service of one replica each, with an in-memory stream and an archive."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from service.candidates.candidate_client import CandidateClient
from service.candidates.settings import CandidatesConfig
from service.config import Config
from service.metrics import Metrics
from service.models.files import active_model, artefact
from service.models.roles import Role
from service.serving.app import build_app
from service.serving.model.store import ModelStore
from service.serving.replica.context import ReplicaContext
from telemetry.batch import Position
from telemetry.events import ItemChange, decode
from telemetry.live.live_feed_reader import FeedBatch
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.wal.slot_inspection import spooled_lines
from tests.support.live.consumer_site import SHIP, Job
from tests.support.replicas.replica_app import Client, body


@dataclasses.dataclass
class Service:
    """One replica of a service."""

    context: ReplicaContext
    client: Client

    def swap(self, version: str) -> None:
        """Serve another published version."""
        self.context.store.swap(artefact.load(self.context.config.models_dir / version))

    async def follow(self) -> None:
        """Learn of all item changes, as the feed delivers them."""
        records = [decode(line) for _slot, line in spooled_lines(self.context.config.spool_dir)]
        marks: dict[str, Position] = {}
        for _, producer, epoch, seq in records:
            marks[producer] = max(Position(epoch, seq), marks.get(producer, Position(0, 0)))
        changes = [record for record in records if isinstance(record.event, ItemChange)]
        await self.context.items.follow(FeedBatch(item_changes=changes, marks=marks))
        await self.context.items.build()


@dataclasses.dataclass
class TwoServices:
    """Both services and the consumer of their events."""

    config: Config
    ranking: Service
    candidates: Service

    async def recommend(self, **fields: Any) -> Any:
        """Return the answer to `POST /v1/recommendations`."""
        return await body(self.ranking.client, "POST", "/v1/recommendations", 200, json=fields)

    async def end_candidates(self) -> None:
        """Stop the candidates service."""
        await self.candidates.client.server.close()

    async def archived(self) -> None:
        """Wait until the archive has every event."""
        for service in (self.ranking, self.candidates):
            assert await service.context.producer.drain(20, archived=True) == 0


@asynccontextmanager
async def two_services(config: Config) -> AsyncIterator[TwoServices]:
    """Run both services with the active versions of their roles."""
    server = MemoryServer()
    producers = [Producer(config.spool_dir, slot, SHIP, MemoryStream(server)) for slot in (0, 1)]
    shipping = [asyncio.create_task(producer.run()) for producer in producers]
    job = Job(MemoryStream(server), config.archive_dir)
    finder = ReplicaContext(
        dataclasses.replace(config, role="candidates"), _store(config, "candidates"), producers[1], Metrics()
    )
    async with TestClient(TestServer(build_app(finder))) as at_finder:
        url = str(at_finder.make_url("")).rstrip("/")
        asked = CandidateClient(CandidatesConfig(url, timeout_s=20.0))
        ranker = ReplicaContext(
            dataclasses.replace(config, role="ranking"),
            _store(config, "ranking"),
            producers[0],
            Metrics(),
            candidates=asked,
        )
        async with TestClient(TestServer(build_app(ranker))) as at_ranker:
            yield TwoServices(config, Service(ranker, at_ranker), Service(finder, at_finder))
        asked.close()
    await job.stop()
    for task in shipping:
        task.cancel()
    await asyncio.gather(*shipping, return_exceptions=True)
    for producer in producers:
        producer.close()


def _store(config: Config, role: Role) -> ModelStore:
    version = active_model.version(config.models_dir, role)
    assert version is not None
    return ModelStore(artefact.load(config.models_dir / version), keeps_previous=role == "candidates")
