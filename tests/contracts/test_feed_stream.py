"""One suite for every FeedStream: Redis, a Redis Cluster and memory behave alike."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from telemetry.batch import Position
from telemetry.errors import StreamAwayError, StreamError, StreamRefusedError
from telemetry.stream.feed_stream import FeedEnds, FeedStream
from telemetry.stream.key_names import KeyNames
from telemetry.stream.memory_feed_stream import MemoryFeed, MemoryFeedStream
from telemetry.stream.redis_feed_stream import RedisFeedStream
from tests.support.machines.redis_cluster import RedisCluster

KEY = KeyNames().live


class FeedServer:
    """A fresh server with its FLUSHALL and its limit of memory, and streams to it."""

    def __init__(
        self, make: Callable[[], FeedStream], flush_all: Callable[[], object], fill: Callable[[bool], object]
    ) -> None:
        self._make = make
        self.flush_all = flush_all
        self.fill = fill
        self.streams: list[FeedStream] = []

    async def stream(self) -> FeedStream:
        stream = self._make()
        self.streams.append(stream)
        await stream.connect()
        return stream


@pytest.fixture(params=["memory", "redis", "cluster"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[FeedServer]:
    if request.param == "memory":
        memory = MemoryFeed()
        server = FeedServer(
            lambda: MemoryFeedStream(memory), memory.flush_all, lambda full: setattr(memory, "full", full)
        )
    elif request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        server = FeedServer(lambda: RedisFeedStream(cluster.url), cluster.flush, cluster.fill)
    else:
        redis = request.getfixturevalue("redis_server")

        def flush() -> None:
            with redis.client() as client:
                client.flushall()

        def fill(full: bool) -> None:
            with redis.client() as client:
                client.config_set("maxmemory", 1 if full else 0)

        server = FeedServer(lambda: RedisFeedStream(redis.url), flush, fill)
    yield server
    for stream in server.streams:
        await stream.close()


async def test_entries_are_read_in_order_behind_a_position(server: FeedServer) -> None:
    """From the beginning, from the middle, and nothing behind the end."""
    stream = await server.stream()
    assert await stream.ends() is None
    await stream.begin(7, b"a")
    assert await stream.append(Position(7, 2), b"b", first_kept=1)
    assert await stream.append(Position(7, 3), b"c", first_kept=1)
    everything = [(Position(7, 1), b"a"), (Position(7, 2), b"b"), (Position(7, 3), b"c")]
    assert await stream.read(Position(0, 0), max_entries=10, block_ms=0) == everything
    assert await stream.read(Position(7, 1), max_entries=1, block_ms=0) == everything[1:2]
    assert await stream.read(Position(7, 3), max_entries=10, block_ms=1) == []
    assert await stream.ends() == FeedEnds(Position(7, 3), Position(7, 1), 3)


async def test_a_reader_waits_for_the_next_entry(server: FeedServer) -> None:
    """It gets it at once, a first entry of a new generation too."""
    writer, reader = await server.stream(), await server.stream()
    for position in (Position(7, 0), Position(8, 0)):
        waiting = asyncio.create_task(reader.read(position, max_entries=10, block_ms=60_000))
        await asyncio.sleep(0)
        await writer.begin(position.epoch, b"x")
        assert await asyncio.wait_for(waiting, 10) == [(Position(position.epoch, 1), b"x")]


async def test_old_entries_are_removed(server: FeedServer) -> None:
    """Those of the generation before a number, and all of earlier generations."""
    stream = await server.stream()
    await stream.begin(7, b"a")
    assert await stream.append(Position(7, 2), b"b", first_kept=1)
    assert await stream.append(Position(7, 3), b"c", first_kept=3)
    assert await stream.ends() == FeedEnds(Position(7, 3), Position(7, 3), 1)
    await stream.begin(8, b"d")
    assert await stream.ends() == FeedEnds(Position(8, 1), Position(8, 1), 1)


async def test_an_entry_follows_only_what_is_there(server: FeedServer) -> None:
    """After FLUSHALL, or behind another consumer's entries, nothing is appended."""
    stream = await server.stream()
    assert not await stream.append(Position(7, 1), b"a", first_kept=1)
    await stream.begin(7, b"a")
    assert await stream.append(Position(7, 2), b"b", first_kept=1)
    assert not await stream.append(Position(7, 2), b"c", first_kept=1)
    server.flush_all()
    assert not await stream.append(Position(7, 3), b"c", first_kept=1)
    assert await stream.ends() is None


async def test_a_smaller_generation_replaces_a_larger_one(server: FeedServer) -> None:
    """As after a clock that ran ahead, or with another archive."""
    stream = await server.stream()
    await stream.begin(9, b"a")
    await stream.begin(7, b"b")
    assert await stream.read(Position(0, 0), max_entries=10, block_ms=0) == [(Position(7, 1), b"b")]


async def test_a_full_server_refuses_and_keeps_what_it_has(server: FeedServer) -> None:
    """Nothing is appended until there is room."""
    stream = await server.stream()
    await stream.begin(7, b"a")
    server.fill(True)
    with pytest.raises(StreamRefusedError, match="it is full"):
        await stream.append(Position(7, 2), b"b", first_kept=1)
    with pytest.raises(StreamRefusedError, match="it is full"):
        await stream.begin(8, b"b")
    server.fill(False)
    assert await stream.append(Position(7, 2), b"b", first_kept=1)


async def test_a_closed_stream_is_away(server: FeedServer) -> None:
    """As in every other way after an error: connect again."""
    stream = await server.stream()
    await stream.close()
    with pytest.raises(StreamAwayError):
        await stream.ends()
    await stream.connect()
    assert await stream.ends() is None


async def test_a_foreign_key_is_replaced(redis_server: Any) -> None:
    """The key with another type holds nothing; a foreign entry has no data, and a mad id is refused."""
    stream = RedisFeedStream(redis_server.url)
    await stream.connect()
    with redis_server.client() as client:
        client.set(KEY, "text")
        assert await stream.ends() is None
        assert await stream.read(Position(0, 0), max_entries=1, block_ms=1) == []
        assert not await stream.append(Position(1, 1), b"a", first_kept=1)
        await stream.begin(1, b"a")
        client.xadd(KEY, {"other": "x"}, id="1-2")
    assert await stream.read(Position(0, 0), max_entries=9, block_ms=0) == [
        (Position(1, 1), b"a"),
        (Position(1, 2), b""),
    ]
    await stream.close()
    with pytest.raises(StreamError):
        RedisFeedStream("http://nowhere")
