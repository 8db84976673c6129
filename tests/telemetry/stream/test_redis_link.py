import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from telemetry.batch import Batch
from telemetry.errors import RedisUnfitError, StreamAwayError
from telemetry.stream.event_stream import Appended
from telemetry.stream.redis_link import RedisLink, addresses
from telemetry.stream.redis_slots import slot_of_key
from telemetry.stream.redis_stream import RedisStream
from tests.conftest import RedisServer
from tests.support.machines.redis_cluster import ClusterNode, RedisCluster


@pytest.fixture
async def link(redis_cluster: RedisCluster) -> AsyncIterator[RedisLink]:
    link = RedisLink(redis_cluster.url)
    yield link
    await link.close()


def keys_of_all_nodes(cluster: RedisCluster) -> list[str]:
    """Return one key for each master."""
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(cluster.master_of(f"k{number}").port, f"k{number}")
    assert len(found) == 3
    return [found[node.port] for node in cluster.masters]


async def test_replies_come_in_the_order_of_the_commands(link: RedisLink, redis_cluster: RedisCluster) -> None:
    """Commands of one key keep their order, whichever nodes the others go to."""
    await link.open()
    a, b, c = keys_of_all_nodes(redis_cluster)
    commands: list[Any] = []
    for number in range(5):
        for key in (c, a, b):
            commands += [("SET", key, number), ("GET", key)]
    for _ in range(2):
        # Sent to the first node and redirected, and then to the right ones.
        replies = await link.exchange(commands)
        assert replies[1::2] == [b"%d" % number for number in range(5) for _ in range(3)]
        assert set(replies[::2]) == {b"OK"}


async def test_a_slot_is_moved_while_it_is_used(link: RedisLink, redis_cluster: RedisCluster) -> None:
    """Keys that were moved are found where they are; after the end of the move the caller has to connect again."""
    key = "{moved}stream"
    slot = slot_of_key(key)
    source = redis_cluster.master_of(key)
    target = next(node for node in redis_cluster.masters if node is not source)
    names = {node: str(node.call("CLUSTER", "MYID"), "ascii") for node in (source, target)}  # type: ignore[call-overload]
    await link.open()
    assert await link.exchange([("XADD", key, "1-1", "f", "v")]) == [b"1-1"]
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    source.call("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    try:
        assert await link.exchange([("XADD", key, "1-2", "f", "v"), ("XLEN", key)]) == [b"1-2", 2]
    finally:
        for node in (target, source, *redis_cluster.masters):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", names[target])
    with pytest.raises(StreamAwayError, match=f"Slot {slot} of the Redis Cluster moved"):
        await link.exchange([("XADD", key, "1-3", "f", "v")])
    assert not link.is_open
    with pytest.raises(StreamAwayError, match="no connection"):
        await link.exchange([("XLEN", key)])
    await link.open()
    assert await link.exchange([("XLEN", key)]) == [2]
    _move_back(redis_cluster, slot, key, target, source, names)


def _move_back(
    cluster: RedisCluster, slot: int, key: str, holder: ClusterNode, home: ClusterNode, names: dict[ClusterNode, str]
) -> None:
    holder.call("DEL", key)
    for node in (home, holder, *cluster.masters):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", names[home])


async def test_any_configured_node_opens_the_cluster(redis_cluster: RedisCluster, free_port: Any) -> None:
    """A node that is away is passed over, and the others are learnt from the redirections."""
    nodes = redis_cluster.masters
    stream = RedisStream(f"redis://127.0.0.1:{free_port()},127.0.0.1:{nodes[2].port}/0")
    await stream.connect()
    for producer in ("p", "q", "r", "s"):
        assert await stream.append(producer, Batch(1, 1, [b"{}\n"]), create=True) is Appended.ADDED
    await stream.close()


async def test_several_hosts_must_be_one_cluster(redis_server: RedisServer, free_port: Any) -> None:
    """Two single servers behind one address would each hold a part of the events."""
    link = RedisLink(f"redis://127.0.0.1:{redis_server.port},127.0.0.1:{free_port()}")
    with pytest.raises(RedisUnfitError, match="no node of a Redis Cluster"):
        await link.open()
    assert not link.is_open
    single = RedisLink(redis_server.url)
    await single.open()
    assert not single.is_cluster
    await single.close()


async def test_a_cancelled_exchange_closes_every_connection(
    link: RedisLink, redis_cluster: RedisCluster, await_until: Callable[..., Awaitable[None]]
) -> None:
    """A reply that was not read must not answer the next command."""
    await link.open()
    a, b, c = keys_of_all_nodes(redis_cluster)
    await link.exchange([("SET", key, "v") for key in (a, b, c)])
    waiting = asyncio.create_task(link.exchange([("GET", a), ("BLPOP", f"{{{b}}}list", 10)], extra_s=10))
    node = redis_cluster.master_of(b)
    await await_until(lambda: "cmd=blpop" in str(node.call("CLIENT", "LIST")), what="the blocked command")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not link.is_open


def test_an_address_of_several_hosts_is_one_address_each() -> None:
    assert addresses("redis://u:p,w@a:1,b:2/0?client_name=x") == [
        "redis://u:p,w@a:1/0?client_name=x",
        "redis://u:p,w@b:2/0?client_name=x",
    ]
    assert addresses("rediss://[2001:db8::1]:6379,[2001:db8::2]:6379") == [
        "rediss://[2001:db8::1]:6379",
        "rediss://[2001:db8::2]:6379",
    ]
    assert addresses("unix:///run/a,b.sock") == ["unix:///run/a,b.sock"]
