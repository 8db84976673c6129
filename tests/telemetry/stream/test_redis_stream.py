"""What a RedisStream does beyond the contract of every EventStream: keys, seals, deadlines and namespaces."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from telemetry.batch import Batch, Position
from telemetry.errors import StreamAwayError, StreamError
from telemetry.stream.event_stream import GroupsEnsured, StreamState, publish_watermarks
from telemetry.stream.key_names import KeyNames
from telemetry.stream.redis_stream import RedisStream
from telemetry.stream.watermark_seal import Seal

KEYS = KeyNames()


def batch(epoch: int, first_seq: int, last_seq: int) -> Batch:
    return Batch(epoch, first_seq, [b'{"seq": %d}\n' % seq for seq in range(first_seq, last_seq + 1)])


async def test_redis_shows_the_entry_in_plain_fields(redis_server: Any) -> None:
    """An entry can be read with redis-cli: its id and fields are those of the design."""
    stream = RedisStream(redis_server.url)
    await stream.connect()
    await stream.handshake("p", 12.5)
    await stream.append("p", replace(batch(2, 1, 2), after=Position(1, 9)), create=True)
    await publish_watermarks(stream, {"p": Position(1, 9)})
    await stream.close()
    with redis_server.client() as client:
        ((entry_id, fields),) = client.xrange("recollect:events:{p}")
        assert entry_id == b"2-2"
        assert fields == {
            b"first_seq": b"1",
            b"n": b"2",
            b"crc32": fields[b"crc32"],
            b"data": b'{"seq": 1}\n{"seq": 2}\n',
            b"after": b"1-9",
        }
        fields = Seal().sealed_fields("p", Position(1, 9))
        assert client.hgetall(KEYS.watermark("p")) == {name.encode(): text.encode() for name, text in fields.items()}
        assert client.zscore("recollect:producers", "p") == 12.5
        assert client.exists(KEYS.events("p"))


async def test_a_watermark_of_a_replaced_key_is_accepted_once_the_key_is_reloaded(redis_server: Any) -> None:
    """The archive may have been begun anew while the replica runs."""
    keys = [b"old" * 11]
    reader = RedisStream(redis_server.url, seal=Seal(keys[0], lambda: keys[0]))
    writer = RedisStream(redis_server.url, seal=Seal(b"new" * 11))
    for stream in (reader, writer):
        await stream.connect()
    await publish_watermarks(writer, {"p": Position(1, 9)})
    state = await reader.handshake("p", 1.0)
    assert state.watermark is None
    assert "copy the consumer's key file" in (state.doubt or "")
    keys[0] = b"new" * 11
    assert (await reader.handshake("p", 1.0)).watermark == Position(1, 9)
    for stream in (reader, writer):
        await stream.close()


async def test_a_frozen_redis_costs_the_deadline_and_the_connection(redis_server: Any) -> None:
    """Without an answer in time the connection is dropped, and not used again."""
    stream = RedisStream(redis_server.url, timeout_s=0.2)
    await stream.connect()
    redis_server.pause()
    try:
        with pytest.raises(StreamAwayError, match="did not answer"):
            await stream.handshake("p", 1.0)
    finally:
        redis_server.resume()
    with pytest.raises(StreamAwayError, match="no connection"):
        await stream.handshake("p", 1.0)


async def test_a_cancelled_call_never_leaves_its_reply_to_the_next_one(redis_server: Any) -> None:
    """Cancelling in mid-command drops the connection, so that replies cannot be mixed up."""
    stream = RedisStream(redis_server.url)
    await stream.connect()
    redis_server.pause()
    try:
        call = asyncio.create_task(stream.handshake("p", 1.0))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    finally:
        redis_server.resume()
    with pytest.raises(StreamAwayError, match="no connection"):
        await stream.producers()
    await stream.connect()
    assert await stream.producers() in ({}, {"p": 1.0})
    await stream.close()


def test_an_invalid_address_is_refused_without_repeating_it() -> None:
    """The message does not show an address, which may hold a password."""
    with pytest.raises(StreamError) as caught:
        RedisStream("ftp://:secret@host")
    assert "secret" not in str(caught.value)


async def test_installations_with_their_own_namespaces_share_a_redis_and_nothing_else(redis_server: Any) -> None:
    """The same producer id in two namespaces is two producers, and every key begins with one of them."""
    ours, theirs = RedisStream(redis_server.url, "shop"), RedisStream(redis_server.url, "shop.test")
    for stream in (ours, theirs):
        await stream.connect()
    await ours.handshake("p", 1.0)
    await ours.append("p", batch(1, 1, 3), create=True)
    await publish_watermarks(ours, {"p": Position(1, 3)})
    assert await theirs.producers() == {}
    assert await theirs.ensure_groups(["p"]) == GroupsEnsured(set(), set(), set())
    assert await theirs.handshake("p", 1.0) == StreamState(None, None, None)
    with redis_server.client() as client:
        assert {key.partition(b":")[0] for key in client.keys("*")} == {b"shop", b"shop.test"}
    for stream in (ours, theirs):
        await stream.close()


@pytest.mark.parametrize("namespace", ["", "a b", "a*", "a{b}", "a:b", "-a", "ä", "a" * 65])
def test_a_namespace_with_a_meaning_in_redis_is_refused(namespace: str) -> None:
    """It is part of patterns, hash tags and command lines."""
    with pytest.raises(StreamError, match="namespace"):
        KeyNames(namespace)
