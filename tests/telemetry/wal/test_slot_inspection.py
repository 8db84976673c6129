"""Inspection of slots from outside, while they are held and afterwards."""

import subprocess
import sys
from pathlib import Path

from telemetry.events import decode
from telemetry.producer import Producer
from telemetry.settings import ProducerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.wal.slot_inspection import holds_events, inspect_slots, spooled_lines
from tests.support import sample_events

_SETTINGS = ProducerSettings(ring_bytes=65536, spool_bytes=1024 * 1024)


def _open(spool: Path) -> Producer:
    return Producer(spool, 0, _SETTINGS, MemoryStream(MemoryServer()))


def test_a_missing_spool_holds_nothing(tmp_path: Path) -> None:
    """Before the first start there is nothing to account for."""
    assert inspect_slots(tmp_path / "spool") == []
    assert list(spooled_lines(tmp_path / "spool")) == []


async def test_a_held_slot_shows_what_is_ringed_and_what_is_durable(tmp_path: Path) -> None:
    """An event counts from the moment it was accepted, and once."""
    producer = _open(tmp_path)
    for number in range(3):
        producer.offer(sample_events.served(event_id=f"ev-{number:08d}"))
    (account,) = inspect_slots(tmp_path)
    assert (account.slot, account.producer, account.epoch, account.held) == (0, producer.producer_id, 1, True)
    (epoch,) = account.epochs
    assert (epoch.epoch, epoch.first_seq, epoch.last_seq, epoch.events, epoch.damaged) == (1, 1, 3, 3, 0)
    await producer.drain(1)
    producer.offer(sample_events.served(event_id="ev-00000003"))
    (epoch,) = inspect_slots(tmp_path)[0].epochs
    assert (epoch.first_seq, epoch.last_seq, epoch.events) == (1, 4, 4)
    seqs = sorted(decode(line).seq for _, line in spooled_lines(tmp_path))
    assert seqs == [1, 2, 3, 4]
    producer.close()
    assert not inspect_slots(tmp_path)[0].held


async def test_ended_epochs_stay_in_the_account_when_their_events_are_released(tmp_path: Path) -> None:
    """The last number of an epoch is known although the archive has all of it and the slot nothing."""
    producer = _open(tmp_path)
    producer.offer(sample_events.served())
    await producer.drain(1)
    producer.close()
    assert holds_events(tmp_path / "0")
    for segment in (tmp_path / "0").glob("*.wal"):
        segment.unlink()
    assert not holds_events(tmp_path / "0")
    (epoch,) = inspect_slots(tmp_path)[0].epochs
    assert (epoch.epoch, epoch.first_seq, epoch.last_seq, epoch.events) == (1, 2, 1, 0)


async def test_a_lost_middle_and_a_lost_tail_are_damage(tmp_path: Path) -> None:
    """Numbers that were accepted and cannot be read any more are counted."""
    producer = _open(tmp_path)
    for number in range(10):
        producer.offer(sample_events.served(event_id=f"ev-{number:08d}"))
    await producer.drain(1)
    producer.close()
    (segment,) = (tmp_path / "0").glob("*.wal")
    data = bytearray(segment.read_bytes())
    third = data.index(b"ev-00000002")
    data[third] ^= 1
    last = data.index(b"ev-00000009")
    segment.write_bytes(data[: last - 40])
    (epoch,) = inspect_slots(tmp_path)[0].epochs
    assert (epoch.first_seq, epoch.last_seq, epoch.events, epoch.damaged) == (1, 10, 8, 2)


def test_unrecorded_drops_survive_the_process(tmp_path: Path) -> None:
    """A killed process leaves the count of its drops."""
    code = """
import asyncio, os, sys, pathlib
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.producer import Offered, Producer
from telemetry.settings import ProducerSettings
from tests.support import sample_events

async def main():
    settings = ProducerSettings(ring_bytes=65536, spool_bytes=1024 * 1024)
    producer = Producer(pathlib.Path(sys.argv[1]), 0, settings, MemoryStream(MemoryServer()))
    while producer.offer(sample_events.served()) is Offered.ACCEPTED:
        pass
    producer.offer(sample_events.served())
    os._exit(9)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3], timeout=60)
    (account,) = inspect_slots(tmp_path)
    assert account.unrecorded == {"served": 2}
    assert not account.held
