import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from telemetry.events import System, decode
from telemetry.producer import Producer
from telemetry.settings import ProducerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.wal.slot_inspection import spooled_lines
from tests.support.spools.producers import lines_in

KILLS = 100 if os.environ.get("RECOLLECT_TEST_LONG") else 8


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


async def test_drops_of_a_killed_process_are_recorded_by_the_next(tmp_path: Path, server: MemoryServer) -> None:
    """They are counted in the ring, which survives the kill."""
    code = """
import asyncio, os, pathlib, sys
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.producer import Offered, Producer
from telemetry.settings import ProducerSettings
from tests.support import sample_events

async def main():
    settings = ProducerSettings(spool_bytes=60_000)
    producer = Producer(pathlib.Path(sys.argv[1]), 0, settings, MemoryStream(MemoryServer()))
    while producer.offer(sample_events.served()) is Offered.ACCEPTED:
        pass
    producer.offer(sample_events.served())
    os._exit(9)

asyncio.run(main())
"""
    argv = [sys.executable, "-c", code, str(tmp_path)]
    await asyncio.to_thread(subprocess.run, argv, cwd=Path(__file__).parents[2], timeout=60)
    producer = Producer(tmp_path, 0, ProducerSettings(), MemoryStream(server))
    assert await producer.drain(5) == 0
    events = [decode(line).event for line in lines_in(server, producer.producer_id)]
    gaps = [event for event in events if isinstance(event, System) and event.kind == "gap"]
    assert [(gap.of_class, gap.count, gap.reason) for gap in gaps] == [("served", 2, "no budget")]
    producer.close()


CHILD = """
import asyncio, os, pathlib, sys
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from telemetry.producer import Offered, Producer
from telemetry.settings import ProducerSettings
from tests.support import sample_events

async def main():
    server = MemoryServer()
    server.reachable = False
    settings = ProducerSettings(ring_bytes=256 * 1024, commit_interval_s=0.002)
    producer = Producer(pathlib.Path(sys.argv[1]), 0, settings, MemoryStream(server))
    asyncio.create_task(producer.run())
    number = 0
    while True:
        number += 1
        event_id = f"ev-{sys.argv[2]}-{number}"
        if number % 7:
            taken = producer.offer(sample_events.served(event_id=event_id)) is Offered.ACCEPTED
        else:
            taken = (await producer.accept([sample_events.feedback(event_id=event_id)])).accepted == 1
        if taken:
            os.write(1, event_id.encode() + b"\\n")
        if number % 3 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    """Processes are killed at random moments, one after the other on one slot: every event that one of them said was
    accepted is held exactly once."""
    rng = Random(1)
    accepted: list[str] = []
    for number in range(KILLS):
        argv = [sys.executable, "-c", CHILD, str(tmp_path), str(number)]
        child = subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
        assert child.stdout is not None
        head = os.read(child.stdout.fileno(), 1)
        killer = threading.Timer(rng.uniform(0.0, 0.15), child.send_signal, [signal.SIGKILL])
        killer.start()
        output = (head + child.stdout.read()).decode()
        assert child.wait(30) == -signal.SIGKILL
        child.stdout.close()
        accepted += output.splitlines()
    # What a segment has may be in the ring still, under the same number.
    held = {record[1:]: record.event.event_id for record in (decode(line) for _, line in spooled_lines(tmp_path))}
    found = Counter(held.values())
    assert len(accepted) > 20 * KILLS
    assert {event_id for event_id in accepted if found[event_id] != 1} == set()
    for epoch in range(1, KILLS + 1):
        numbers = sorted(seq for _, one, seq in held if one == epoch)
        assert numbers == list(range(1, len(numbers) + 1))
