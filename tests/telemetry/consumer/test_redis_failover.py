"""Telemetry through a Redis Cluster whose masters die and are replaced by their replicas."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from telemetry.events import Served
from telemetry.producer import Producer
from tests.support.live.consumer_site import KEYS, Site, served
from tests.support.machines.redis_cluster import RedisCluster


@pytest.fixture
async def cluster(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[RedisCluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = RedisCluster(folder, free_port, replicas=1)
    yield cluster
    cluster.stop()


async def test_a_master_dies_and_every_event_is_archived_once(
    tmp_path: Path, cluster: RedisCluster, await_until: Callable[..., Awaitable[None]]
) -> None:
    """Its replica may lack what it acknowledged: producers ask the new master what it has, and send the rest again."""
    site = Site(tmp_path, cluster)
    producers: list[Producer] = [site.producer() for _ in range(3)]
    site.consumer()
    offered: list[str] = []

    def archived() -> list[str]:
        return sorted(record.event.event_id for record in site.archived() if isinstance(record.event, Served))

    def offer(n: int) -> None:
        for _ in range(n):
            number = len(offered)
            event = served(number)
            producers[number % 3].offer(event)
            offered.append(event.event_id)

    offer(300)
    await await_until(lambda: len(archived()) == 300)
    for key in (KEYS.events(producers[0].producer_id), KEYS.owner):
        cluster.master_of(key).kill()
        for _ in range(30):
            offer(3)
            await asyncio.sleep(0.01)
        await await_until(lambda: len(archived()) >= len(offered), timeout_s=30)
        cluster.master_of(key).start()
    offer(30)
    await await_until(lambda: len(archived()) >= len(offered), timeout_s=30)
    assert archived() == offered
    await site.end()
