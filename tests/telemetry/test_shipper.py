import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.batch import Batch, Entry, Position, from_entry, to_fields
from telemetry.events import Served, decode
from telemetry.notes import Connected, Disconnected, IdentityChanged, Note, Rewound, WatermarkDoubted
from telemetry.producer import Producer
from telemetry.settings import ProducerSettings
from telemetry.shipper import ResumeAt, ResumeDecision, TakeNewEpoch, TakeNewProducer, WaitForConsumer, decide_resume
from telemetry.stream.event_stream import StreamState
from telemetry.stream.key_names import KeyNames
from telemetry.stream.redis_stream import RedisStream
from telemetry.stream.watermark_seal import Seal
from tests.support import sample_events

AwaitUntil = Callable[..., Awaitable[None]]
QUICK = ProducerSettings(
    check_interval_s=0.05,
    linger_s=0.001,
    batch_events=7,
    ring_bytes=256 * 1024,
    commit_interval_s=0.001,
    segment_age_s=0.0,
)
KEYS = KeyNames()
LINES = [b"one\n", b"two\n", b"three\n", b"four\n", b"five\n"]
OURS = b"three\nfour\n"
NO_BATCH = WaitForConsumer("Entry 3-4 of the stream is no batch of events.")
FAR = "The stream's last id is {}-{}, which no producer reaches."


def event(number: int) -> Served:
    return sample_events.served(event_id=f"ev-{number:08d}")


def tail(epoch: int, first_seq: int, lines: list[bytes]) -> Entry:
    batch = Batch(epoch, first_seq, lines)
    return Entry(batch.entry_id, to_fields(batch))


@pytest.mark.parametrize(
    ("state", "ours", "expected"),
    [
        (StreamState(None, None, None), None, ResumeAt(Position(0, 0))),
        (StreamState(Position(3, 4), tail(3, 3, LINES[2:4]), None), OURS, ResumeAt(Position(3, 4))),
        (StreamState(Position(3, 4), tail(3, 1, LINES[:4]), None), OURS, ResumeAt(Position(3, 4))),
        (StreamState(Position(3, 4), tail(3, 1, LINES[:4]), None), None, ResumeAt(Position(3, 4))),
        (StreamState(Position(3, 4), None, Position(3, 2)), None, ResumeAt(Position(3, 4))),
        (StreamState(None, None, Position(3, 5)), None, ResumeAt(Position(3, 5))),
        (StreamState(Position(3, 2), None, Position(3, 5)), None, ResumeAt(Position(3, 5))),
        (StreamState(Position(2, 900), tail(2, 900, [b"old\n"]), Position(2, 800)), None, ResumeAt(Position(2, 900))),
        (StreamState(Position(3, 6), None, None), None, TakeNewEpoch(3)),
        (StreamState(None, None, Position(4, 1)), None, TakeNewEpoch(4)),
        (
            StreamState(Position(3, 4), tail(3, 3, [b"not\n", b"ours\n"]), None),
            OURS,
            TakeNewProducer("entry 3-4 is not what was sent"),
        ),
        (StreamState(Position(3, 4), Entry("3-4", {}), None), OURS, NO_BATCH),
        (StreamState(Position(3, 4), Entry("3-4", {}), None), b"", NO_BATCH),
        (StreamState(Position(2**60, 0), None, None), None, WaitForConsumer(FAR.format(2**60, 0))),
        (StreamState(Position(3, 2**63), None, None), None, WaitForConsumer(FAR.format(3, 2**63))),
    ],
)
def test_where_to_resume_after_a_handshake(state: StreamState, ours: bytes | None, expected: ResumeDecision) -> None:
    """The spool is in epoch 3 and numbered events 1 to 5."""
    assert decide_resume(Position(3, 5), state, ours) == expected


class ShippingRig:
    """A running producer on a real Redis, with its notes."""

    def __init__(self, spool: Path, redis: Any, url: str | None = None, settings: ProducerSettings = QUICK) -> None:
        self.redis = redis
        self.notes: list[Note] = []
        stream = RedisStream(url or redis.url, timeout_s=0.5)
        self.producer = Producer(spool, None, settings, stream, self.notes.append)
        self.run = asyncio.create_task(self.producer.run())
        self.offered = 0

    def offer(self, count: int) -> None:
        for _ in range(count):
            self.offered += 1
            self.producer.offer(event(self.offered))

    def notes_of(self, kind: type[Note]) -> list[Note]:
        return [note for note in self.notes if isinstance(note, kind)]

    def in_redis(self) -> list[str]:
        """Return the event ids in the stream; entries may overlap, but never leave a hole."""
        with self.redis.client() as client:
            found: list[str] = []
            for entry_id, fields in client.xrange(KEYS.events(self.producer.producer_id)):
                batch = from_entry(Entry(entry_id.decode(), fields))
                assert batch.first_seq <= len(found) + 1
                found[batch.first_seq - 1 :] = [decode(line).event.event_id for line in batch.lines]
            return found

    def expected(self) -> list[str]:
        return [f"ev-{number:08d}" for number in range(1, self.offered + 1)]

    def publish_watermark(self, seq: int) -> None:
        with self.redis.client() as client:
            key = KEYS.watermark(self.producer.producer_id)
            fields = Seal().sealed_fields(self.producer.producer_id, Position(self.producer.epoch, seq))
            client.hset(key, mapping=dict(fields.items()))

    async def end(self) -> None:
        await self.producer.drain(5)
        self.producer.close()
        await asyncio.gather(self.run, return_exceptions=True)


@pytest.fixture
async def rig(tmp_path: Path, redis_server: Any) -> AsyncIterator[ShippingRig]:
    rig = ShippingRig(tmp_path, redis_server)
    yield rig
    await rig.end()


async def test_events_reach_redis_in_batches_and_in_order(rig: ShippingRig, await_until: AwaitUntil) -> None:
    """The plain case: many events per entry, none missing, none twice; only the archive's watermark releases."""
    rig.offer(100)
    await await_until(lambda: rig.producer.counters.shipped == 100)
    assert rig.in_redis() == rig.expected()
    assert rig.producer.counters.batches == 15
    assert rig.producer.counters.spooled_events == 100
    rig.publish_watermark(100)
    await await_until(lambda: rig.producer.counters.released == 100)
    assert rig.producer.counters.spooled_events == 0


async def test_redis_is_killed_and_comes_back(rig: ShippingRig, await_until: AwaitUntil) -> None:
    """Events offered during the outage follow; those that Redis kept are not sent again, the rest are."""
    rig.offer(50)
    await await_until(lambda: rig.producer.counters.shipped == 50)
    rig.redis.kill()
    rig.offer(50)
    await await_until(lambda: rig.notes_of(Disconnected))
    rig.redis.start()
    await await_until(lambda: rig.producer.counters.connected and len(rig.in_redis()) == 100)
    assert rig.in_redis() == rig.expected()
    assert len(rig.notes_of(Disconnected)) == 1
    assert len(rig.notes_of(Connected)) == 2


async def test_redis_loses_everything_while_events_flow(rig: ShippingRig, await_until: AwaitUntil) -> None:
    """After each FLUSHALL all unarchived events are sent again from the watermark on; no gap ever shows."""
    for _ in range(5):
        rig.offer(40)
        await await_until(lambda: rig.producer.counters.shipped >= rig.offered)
        with rig.redis.client() as client:
            client.flushall()
        rig.offer(40)
        await await_until(lambda: rig.in_redis() == rig.expected())
    assert rig.producer.counters.rewinds == 5
    assert len(rig.notes_of(Rewound)) == 5


async def test_an_idle_producer_notices_a_data_loss_of_redis(rig: ShippingRig, await_until: AwaitUntil) -> None:
    """Without any new event the check finds out, and announces the producer again."""
    rig.offer(40)
    await await_until(lambda: rig.producer.counters.shipped == 40)
    with rig.redis.client() as client:
        client.flushall()
    await await_until(lambda: rig.in_redis() == rig.expected())
    with rig.redis.client() as client:
        assert client.zrange("recollect:producers", 0, -1) == [rig.producer.producer_id.encode()]


async def test_a_frozen_redis_causes_no_loss_and_no_duplicate(rig: ShippingRig, await_until: AwaitUntil) -> None:
    """Commands that arrive late, after their connection was given up, do no harm."""
    rig.offer(20)
    await await_until(lambda: rig.producer.counters.shipped == 20)
    rig.redis.pause()
    rig.offer(20)
    await await_until(lambda: rig.notes_of(Disconnected))
    rig.offer(20)
    rig.redis.resume()
    await await_until(lambda: rig.in_redis() == rig.expected())


class ReplyEater:
    """A TCP proxy that applies a command with XADD and then cuts the line instead of passing the reply."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.eat = 0
        self.eaten = 0
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers += [writer, up_writer]
        while data := await reader.read(1 << 20):
            up_writer.write(data)
            reply = await up_reader.read(1 << 20)
            if b"XADD" in data and self.eat:
                self.eat -= 1
                self.eaten += 1
                break
            writer.write(reply)
        writer.close()
        up_writer.close()


async def test_a_lost_reply_causes_no_duplicate(tmp_path: Path, redis_server: Any, await_until: AwaitUntil) -> None:
    """Redis applied the batch and its answer was lost: the next handshake finds the batch."""
    proxy = ReplyEater(redis_server.port)
    await proxy.start()
    proxy.eat = 3
    rig = ShippingRig(tmp_path, redis_server, proxy.url)
    rig.offer(60)
    await await_until(lambda: proxy.eaten == 3 and len(rig.in_redis()) == 60)
    with redis_server.client() as client:
        entries = client.xrange(KEYS.events(rig.producer.producer_id))
    assert sum(int(fields[b"n"]) for _, fields in entries) == 60
    assert rig.in_redis() == rig.expected()
    await rig.end()
    await proxy.stop()


async def test_a_stream_ahead_of_the_slot_makes_a_new_epoch(tmp_path: Path, redis_server: Any) -> None:
    """An old copy of the slot was restored: its numbers are used already, so the new epoch begins beyond them."""
    rig = ShippingRig(tmp_path, redis_server)
    with redis_server.client() as client:
        batch = Batch(1, 499, [b'{"seq": 499}\n', b'{"seq": 500}\n'])
        client.xadd(KEYS.events(rig.producer.producer_id), dict(to_fields(batch).items()), id="1-500")
    rig.offer(10)
    assert await rig.producer.drain(5) == 0
    with redis_server.client() as client:
        entries = client.xrange(KEYS.events(rig.producer.producer_id))
    batches = [from_entry(Entry(entry_id.decode(), fields)) for entry_id, fields in entries[1:]]
    lines = [decode(text) for batch in batches for text in batch.lines]
    assert [(record.epoch, record.seq) for record in lines] == [(2, seq) for seq in range(1, 11)]
    assert [record.event.event_id for record in lines] == rig.expected()
    assert rig.notes_of(IdentityChanged) == [
        IdentityChanged(rig.producer.producer_id, 2, "the stream had seen epoch 1")
    ]
    await rig.end()


async def test_a_foreign_writer_under_the_same_id_makes_a_new_producer(tmp_path: Path, redis_server: Any) -> None:
    """The last entry is not what was sent: an alarm, and everything is shipped under a new id."""
    rig = ShippingRig(tmp_path, redis_server)
    old = rig.producer.producer_id
    with redis_server.client() as client:
        batch = Batch(1, 1, [b'{"foreign": 1}\n'])
        client.xadd(KEYS.events(old), dict(to_fields(batch).items()), id="1-1")
    rig.offer(10)
    assert await rig.producer.drain(5) == 0
    assert rig.producer.producer_id != old
    assert rig.producer.epoch == 2
    assert rig.producer.counters.identity_conflicts == 1
    assert rig.in_redis() == rig.expected()
    await rig.end()


@pytest.mark.parametrize("place", [f"{2**60}-1", f"{2**64 - 1}-{2**64 - 1}"])
async def test_a_foreign_entry_is_left_to_the_consumer(rig: ShippingRig, await_until: AwaitUntil, place: str) -> None:
    """No event is abandoned and no identity changes: the consumer removes the stream."""
    rig.offer(5)
    await await_until(lambda: len(rig.in_redis()) == 5)
    key = KEYS.events(rig.producer.producer_id)
    with rig.redis.client() as client:
        client.delete(key)
        client.xadd(key, {b"anything": b"else"}, id=place)
    rig.offer(5)
    await await_until(lambda: "until the consumer removes it" in (rig.producer.counters.last_error or ""))
    counters = rig.producer.counters
    assert (counters.identity_changes, counters.relinquished, counters.spooled_events) == (0, 0, 10)
    with rig.redis.client() as client:
        client.delete(key)
    await await_until(lambda: rig.in_redis() == rig.expected())


async def test_drain_returns_how_many_events_were_not_shipped(rig: ShippingRig, await_until: AwaitUntil) -> None:
    """With Redis away until the deadline the number of events left is the answer."""
    rig.offer(5)
    await await_until(lambda: rig.producer.counters.shipped == 5)
    rig.redis.kill()
    rig.offer(9)
    assert await rig.producer.drain(0.3) == 9
    rig.redis.start()


async def test_a_watermark_without_the_archives_seal_is_reported_once_and_changes_nothing(
    rig: ShippingRig, await_until: AwaitUntil
) -> None:
    """Neither releases nor the cursor; the archive's own watermark is accepted as before."""
    rig.offer(10)
    await await_until(lambda: len(rig.in_redis()) == 10)
    with rig.redis.client() as client:
        client.hset(KEYS.watermark(rig.producer.producer_id), mapping={"epoch": 7, "seq": 10})
    await await_until(lambda: rig.producer.counters.watermarks_doubted > 2)
    (note,) = rig.notes_of(WatermarkDoubted)
    assert isinstance(note, WatermarkDoubted)
    assert "no seal" in note.reason
    counters = rig.producer.counters
    assert (counters.released, counters.identity_changes, counters.unarchived_events) == (0, 0, 10)
    rig.publish_watermark(10)
    await await_until(lambda: rig.producer.archived == Position(1, 10))


async def test_events_of_an_earlier_process_are_shipped_first_and_released(
    tmp_path: Path, redis_server: Any, await_until: AwaitUntil
) -> None:
    """Its events keep their numbers, and the archive's watermark in a later epoch covers them."""
    rig = ShippingRig(tmp_path, redis_server)
    redis_server.pause()
    rig.offer(10)
    assert await rig.producer.drain(0.2) == 10
    rig.producer.close()
    redis_server.resume()
    again = ShippingRig(tmp_path, redis_server)
    again.offered = 10
    again.offer(10)
    await await_until(lambda: again.producer.counters.shipped >= 20)
    with redis_server.client() as client:
        entries = client.xrange(KEYS.events(again.producer.producer_id))
    records = [
        decode(text) for entry_id, fields in entries for text in from_entry(Entry(entry_id.decode(), fields)).lines
    ]
    served = [record for record in records if record.event.event_id.startswith("ev-")]
    assert [record.event.event_id for record in served] == again.expected()
    assert [(record.epoch, record.seq) for record in records[:10]] == [(1, seq) for seq in range(1, 11)]
    assert [record.epoch for record in records[10:]] == [2] * (len(records) - 10)
    counters = again.producer.counters
    again.publish_watermark(counters.served.accepted + counters.system.accepted)
    await await_until(lambda: again.producer.counters.spooled_events == 0)
    counters = again.producer.counters
    assert (counters.recovered, counters.released) == (10, 10 + counters.served.accepted + counters.system.accepted)
    await again.end()
