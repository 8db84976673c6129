"""A replica's real application with an in-memory stream, for the tests of the HTTP API."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from service.config import Config
from service.metrics import Metrics
from service.models.files import artefact
from service.models.snapshot import ModelSnapshot
from service.serving.app import build_app
from service.serving.model.store import ModelStore
from service.serving.replica.context import ReplicaContext
from telemetry.archive.schema_1 import expand
from telemetry.producer import Producer
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.wal.slot_inspection import spooled_lines

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def context(
    tmp_path: Path, make_snapshot: Callable[..., ModelSnapshot], publish_snapshot: Callable[..., str]
) -> ReplicaContext:
    config = Config(home=tmp_path)
    version = publish_snapshot(config.models_dir, make_snapshot(n_items=60))
    producer = Producer(config.spool_dir, 0, config.producer, MemoryStream(MemoryServer()))
    return ReplicaContext(config, ModelStore(artefact.load(config.models_dir / version)), producer, Metrics())


@pytest.fixture
async def client(context: ReplicaContext) -> AsyncIterator[Client]:
    shipping = asyncio.create_task(context.producer.run())
    async with TestClient(TestServer(build_app(context))) as client:
        yield client
    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    context.producer.close()


def recorded_events(context: ReplicaContext) -> list[dict[str, Any]]:
    """Return the events in the producer's spool, as an archive reader gets them."""
    # An event may be in the ring buffer and in a segment.
    spooled = [expand(line) for _slot, line in spooled_lines(context.config.spool_dir)]
    found = {event["seq"]: event for event in map(orjson.loads, spooled)}
    return [found[seq] for seq in sorted(found)]


async def body(client: Client, method: str, path: str, status: int, **kwargs: Any) -> Any:
    async with client.request(method, path, **kwargs) as response:
        assert response.status == status, await response.text()
        return await response.json(content_type=None)
