"""One suite for every EventStream: Redis, a Redis Cluster and memory behave alike."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from telemetry.batch import Batch, Position, from_entry
from telemetry.errors import GroupMissingError, StreamAwayError, StreamRefusedError
from telemetry.stream.event_stream import (
    Appended,
    CommittedEntries,
    EventStream,
    GroupsEnsured,
    StreamEnds,
    publish_watermarks,
)
from telemetry.stream.key_names import KeyNames
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.stream.redis_stream import RedisStream
from tests.support.machines.redis_cluster import RedisCluster

MakeStream = Callable[[], EventStream]
KEYS = KeyNames()


class StreamServer:
    """A fresh server of streams, with its FLUSHALL, its limit of memory, and the loss of all entries of a stream."""

    def __init__(
        self,
        connect: MakeStream,
        flush_all: Callable[[], object],
        fill: Callable[[bool], object],
        lose: Callable[[str], object],
    ) -> None:
        self._connect = connect
        self.flush_all = flush_all
        self.fill = fill
        self.lose = lose
        self.streams: list[EventStream] = []

    async def stream(self) -> EventStream:
        stream = self._connect()
        self.streams.append(stream)
        await stream.connect()
        return stream


@pytest.fixture(params=["memory", "redis", "cluster"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[StreamServer]:
    if request.param == "memory":
        memory = MemoryServer()

        def fill_memory(full: bool) -> None:
            memory.full = full

        server = StreamServer(
            lambda: MemoryStream(memory), memory.flush_all, fill_memory, lambda p: memory.streams[p].entries.clear()
        )
    elif request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")

        def lose_in_cluster(producer: str) -> None:
            key = KEYS.events(producer)
            cluster.master_of(key).call("XTRIM", key, "MAXLEN", 0)

        server = StreamServer(lambda: RedisStream(cluster.url), cluster.flush, cluster.fill, lose_in_cluster)
    else:
        redis = request.getfixturevalue("redis_server")

        def flush() -> None:
            with redis.client() as client:
                client.flushall()

        def fill(full: bool) -> None:
            with redis.client() as client:
                client.config_set("maxmemory", 1 if full else 0)

        def lose(producer: str) -> None:
            with redis.client() as client:
                client.xtrim(KEYS.events(producer), maxlen=0, approximate=False)

        server = StreamServer(lambda: RedisStream(redis.url), flush, fill, lose)
    yield server
    for stream in server.streams:
        await stream.close()


def batch(epoch: int, first_seq: int, last_seq: int) -> Batch:
    return Batch(epoch, first_seq, [b'{"seq": %d}\n' % seq for seq in range(first_seq, last_seq + 1)])


async def test_append_does_not_create_a_stream(server: StreamServer) -> None:
    """Without `create` a missing stream is reported, and stays missing."""
    stream = await server.stream()
    assert await stream.append("p", batch(1, 1, 3), create=False) is Appended.NO_STREAM
    assert (await stream.handshake("p", 1.0)).last is None


async def test_the_consumer_does_not_create_a_stream(server: StreamServer) -> None:
    """The producer creates the stream: one created by the reader would hide a data loss of Redis."""
    stream = await server.stream()
    assert await stream.ensure_groups(["p"]) == GroupsEnsured(set(), set(), set())
    assert await stream.append("p", batch(1, 1, 1), create=False) is Appended.NO_STREAM


async def test_ids_only_grow(server: StreamServer) -> None:
    """The same id and a smaller one count as already there; the stream keeps one entry of each."""
    stream = await server.stream()
    assert await stream.append("p", batch(1, 1, 3), create=True) is Appended.ADDED
    assert await stream.append("p", batch(1, 1, 3), create=False) is Appended.ALREADY_THERE
    assert await stream.append("p", batch(1, 1, 2), create=False) is Appended.ALREADY_THERE
    assert await stream.append("p", batch(1, 4, 5), create=False) is Appended.ADDED
    assert await stream.append("p", batch(2, 1, 1), create=False) is Appended.ADDED
    state = await stream.handshake("p", 1.0)
    assert state.last == Position(2, 1)
    assert state.tail is not None
    assert from_entry(state.tail) == batch(2, 1, 1)


async def test_a_handshake_announces_the_producer(server: StreamServer) -> None:
    """A handshake announces a producer to the consumer before it has a stream."""
    stream = await server.stream()
    await stream.handshake("b", 2.0)
    await stream.handshake("a", 1.0)
    assert await stream.producers() == {"a": 1.0, "b": 2.0}


async def test_entries_from_before_the_group_are_read_too(server: StreamServer) -> None:
    """The group begins at the stream's start."""
    stream = await server.stream()
    await stream.append("p", batch(1, 1, 3), create=True)
    assert await stream.ensure_groups(["p", "q"]) == GroupsEnsured({"p"}, set(), set())
    (delivered,) = await stream.read(["p"], pending=False, max_entries=10, block_ms=10)
    assert delivered.producer == "p"
    assert [from_entry(entry) for entry in delivered.entries] == [batch(1, 1, 3)]


async def test_ensuring_a_group_again_keeps_its_position(server: StreamServer) -> None:
    """The second call neither fails nor delivers again."""
    stream = await server.stream()
    await stream.append("p", batch(1, 1, 3), create=True)
    await stream.ensure_groups(["p"])
    await stream.read(["p"], pending=False, max_entries=10, block_ms=10)
    assert await stream.ensure_groups(["p"]) == GroupsEnsured({"p"}, set(), set())
    assert await stream.read(["p"], pending=False, max_entries=10, block_ms=10) == []


async def test_unacknowledged_entries_stay_pending_for_the_successor(server: StreamServer) -> None:
    """Entries that one consumer read and did not acknowledge are pending for the next one, in order."""
    first, second = await server.stream(), await server.stream()
    await first.append("p", batch(1, 1, 3), create=True)
    await first.append("p", batch(1, 4, 6), create=False)
    await first.ensure_groups(["p"])
    await first.read(["p"], pending=False, max_entries=10, block_ms=10)
    (delivered,) = await second.read(["p"], pending=True, max_entries=1, block_ms=0)
    assert [entry.entry_id for entry in delivered.entries] == ["1-3"]
    await second.acknowledge([CommittedEntries("p", ["1-3"], Position(1, 3))])
    (delivered,) = await second.read(["p"], pending=True, max_entries=10, block_ms=0)
    assert [entry.entry_id for entry in delivered.entries] == ["1-6"]
    await second.acknowledge([CommittedEntries("p", ["1-6"], Position(1, 6))])
    assert await second.read(["p"], pending=True, max_entries=10, block_ms=0) == []


async def test_acknowledging_trims_and_publishes_and_keeps_the_last_id(server: StreamServer) -> None:
    """After everything is trimmed the stream still has its last id."""
    stream = await server.stream()
    await stream.append("p", batch(1, 1, 3), create=True)
    await stream.append("p", batch(1, 4, 6), create=False)
    await stream.ensure_groups(["p"])
    await stream.read(["p"], pending=False, max_entries=10, block_ms=10)
    await stream.acknowledge([CommittedEntries("p", ["1-3"], Position(1, 3))])
    state = await stream.handshake("p", 1.0)
    assert state.watermark == Position(1, 3)
    assert state.tail is not None
    await stream.acknowledge([CommittedEntries("p", ["1-6"], Position(1, 6))])
    state = await stream.handshake("p", 1.0)
    assert (state.last, state.tail, state.watermark) == (Position(1, 6), None, Position(1, 6))


async def test_publishing_needs_no_stream(server: StreamServer) -> None:
    """Watermarks can be published again after Redis lost everything, without making a stream."""
    stream = await server.stream()
    await publish_watermarks(stream, {"p": Position(3, 9)})
    state = await stream.handshake("p", 1.0)
    assert (state.last, state.watermark) == (None, Position(3, 9))


async def test_a_lost_stream_is_noticed_by_both_ends(server: StreamServer) -> None:
    """After FLUSHALL the producer finds no stream, and the reader no group."""
    stream = await server.stream()
    await stream.append("p", batch(1, 1, 3), create=True)
    await stream.ensure_groups(["p"])
    server.flush_all()
    assert await stream.append("p", batch(1, 4, 6), create=False) is Appended.NO_STREAM
    with pytest.raises(GroupMissingError):
        await stream.read(["p"], pending=False, max_entries=10, block_ms=10)


async def test_a_waiting_reader_gets_what_arrives(server: StreamServer) -> None:
    """A blocking read returns as soon as there is something."""
    reader, writer = await server.stream(), await server.stream()
    await writer.append("p", batch(1, 1, 1), create=True)
    await reader.ensure_groups(["p"])
    await reader.read(["p"], pending=False, max_entries=10, block_ms=10)
    waiting = asyncio.create_task(reader.read(["p"], pending=False, max_entries=10, block_ms=1500))
    await writer.append("p", batch(1, 2, 2), create=False)
    async with asyncio.timeout(5):
        (delivered,) = await waiting
    assert [entry.entry_id for entry in delivered.entries] == ["1-2"]


async def test_a_read_is_bounded_for_each_producer(server: StreamServer) -> None:
    """`max_entries` bounds a read for each producer on its own."""
    stream = await server.stream()
    for producer in ("p", "q"):
        await stream.append(producer, batch(1, 1, 1), create=True)
        await stream.append(producer, batch(1, 2, 2), create=False)
    await stream.ensure_groups(["p", "q"])
    delivered = await stream.read(["p", "q"], pending=False, max_entries=1, block_ms=10)
    assert {one.producer: [entry.entry_id for entry in one.entries] for one in delivered} == {
        "p": ["1-1"],
        "q": ["1-1"],
    }


async def test_nothing_is_sent_without_a_connection(server: StreamServer) -> None:
    """A closed stream raises instead of connecting by itself."""
    stream = await server.stream()
    await stream.close()
    with pytest.raises(StreamAwayError):
        await stream.handshake("p", 1.0)


async def test_the_ends_of_a_stream(server: StreamServer) -> None:
    """After a loss the two differ; a producer without a stream is left out."""
    stream = await server.stream()
    await stream.append("p", batch(1, 1, 3), create=True)
    await stream.append("p", batch(1, 4, 6), create=False)
    assert await stream.stream_ends(["p", "q"]) == {"p": StreamEnds(Position(1, 6), Position(1, 6))}
    server.lose("p")
    assert await stream.stream_ends(["p"]) == {"p": StreamEnds(Position(1, 6), None)}
    assert await stream.stream_ends([]) == {}


async def test_a_stream_that_was_removed_may_begin_anew(server: StreamServer) -> None:
    """With the same ids; its group went with it."""
    stream = await server.stream()
    await stream.append("p", batch(1, 1, 3), create=True)
    await stream.ensure_groups(["p"])
    await stream.remove_streams(["p", "q"])
    assert await stream.append("p", batch(1, 1, 3), create=False) is Appended.NO_STREAM
    assert await stream.append("p", batch(1, 1, 3), create=True) is Appended.ADDED
    with pytest.raises(GroupMissingError):
        await stream.read(["p"], pending=False, max_entries=10, block_ms=10)


async def test_what_redis_allows_without_memory(server: StreamServer) -> None:
    """Reads, with a group or without, acknowledgements, trims, removals and handshakes."""
    stream = await server.stream()
    for producer in ("p", "q"):
        await stream.handshake(producer, 1.0)
        await stream.append(producer, batch(1, 1, 3), create=True)
        await stream.append(producer, batch(1, 4, 6), create=False)
    await stream.ensure_groups(["p"])
    await publish_watermarks(stream, {"p": Position(0, 1)})
    server.fill(True)
    with pytest.raises(StreamRefusedError):
        await stream.append("p", batch(1, 7, 7), create=False)
    assert await stream.ensure_groups(["p", "q"]) == GroupsEnsured(set(), {"p", "q"}, set())
    (delivered,) = await stream.read(["p"], pending=False, max_entries=1, block_ms=10)
    assert [from_entry(entry) for entry in delivered.entries] == [batch(1, 1, 3)]
    assert not await stream.acknowledge([CommittedEntries("p", ["1-3"], Position(1, 3))])
    assert not await publish_watermarks(stream, {"q": Position(1, 3)})
    state = await stream.handshake("p", 2.0)
    assert (state.last, state.watermark) == (Position(1, 6), Position(0, 1))
    assert await stream.producers() == {"p": 1.0, "q": 1.0}
    (first, second) = await stream.scan({"p": Position(0, 0), "q": Position(0, 0)}, max_entries=9)
    assert [[from_entry(entry) for entry in one.entries] for one in (first, second)] == [[batch(1, 4, 6)]] * 2
    await stream.remove_streams(["q"])
    assert await stream.scan({"q": Position(0, 0)}, max_entries=9) == []
    server.fill(False)
    assert await publish_watermarks(stream, {"p": Position(1, 3)})
    assert (await stream.handshake("p", 3.0)).watermark == Position(1, 3)


async def test_a_scan_begins_behind_a_position_and_omits_ids_out_of_range(server: StreamServer) -> None:
    """Such an entry could be neither acknowledged nor trimmed, and would come again for ever."""
    stream = await server.stream()
    await stream.append("p", batch(1, 1, 3), create=True)
    await stream.append("p", batch(1, 4, 6), create=False)
    await stream.append("p", Batch(2**63, 1, [b"{}\n"]), create=False)
    (delivered,) = await stream.scan({"p": Position(1, 3)}, max_entries=9)
    assert [entry.entry_id for entry in delivered.entries] == ["1-6"]
    assert await stream.scan({"p": Position(1, 6)}, max_entries=9) == []
