"""The consumer job as a process that dies, freezes and wakes up; its archive is exact all the same."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.archive.archive_reader import committed_files, read
from telemetry.archive.archive_snapshot import open_snapshot
from telemetry.archive.dead_letters import read_letters
from telemetry.batch import Batch, Position
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import Progress
from telemetry.events import decode, encode
from telemetry.failpoints import FAILPOINTS
from telemetry.live.live_event import LiveEvent
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.stream.redis_feed_stream import RedisFeedStream
from telemetry.stream.redis_stream import RedisStream
from tests.reference.live_state import live_state
from tests.support import sample_events
from tests.support.live.live_follower import LiveFollower

ROOT = Path(__file__).parents[2]
# In the middle of the work, and then its successor at its very first round.
STEPS = [(name, hit) for name in FAILPOINTS if name.startswith("consumer.") for hit in (3, 1)]
# A consumer that is killed from here on has committed what it took.
N_UNCOMMITTED = STEPS.index(("consumer.committed", 3))
# A lease passes each of these at least once, before it has archived anything.
LIVE_STEPS = [(name, 1) for name in FAILPOINTS if name.startswith("live.")]
AwaitUntil = Callable[..., Awaitable[None]]
TAKEOVER_S = 1.5


class Site:
    """Streams that events are appended to, and consumer processes of one archive."""

    def __init__(self, folder: Path, redis: Any, free_port: Callable[[], int]) -> None:
        self.archive = folder / "var" / "archive"
        self.state = folder / "var" / "state"
        self._folder = folder
        self._redis = redis
        self._free_port = free_port
        self._stream = RedisStream(redis.url)
        self._next: dict[str, int] = {}
        self.processes: list[subprocess.Popen[bytes]] = []

    async def append(self, producer: str, entries: int, events: int = 10) -> None:
        """Append entries of mixed events, as a shipper does."""
        if not self._next:
            await self._stream.connect()
        for _ in range(entries):
            first_seq = self._next.get(producer, 1)
            lines = [self._line(producer, seq) for seq in range(first_seq, first_seq + events)]
            await self._stream.handshake(producer, 1.0)
            await self._stream.append(producer, Batch(1, first_seq, lines), create=first_seq == 1)
            self._next[producer] = first_seq + events

    def _line(self, producer: str, seq: int) -> bytes:
        event_id = f"ev-{producer}-{seq:08d}"
        return encode(
            (sample_events.feedback if seq % 3 else sample_events.served)(event_id=event_id), producer, 1, seq
        )

    def start(self, failpoint: str = "", name: str = "consumer") -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            "RECOLLECT_HOME": str(self._folder / "var"),
            "RECOLLECT_LOGS": str(self._folder / "logs" / name),
            "RECOLLECT_REDIS_URL": self._redis.url,
            "RECOLLECT_FAILPOINT": failpoint,
            "RECOLLECT_CONSUMER_READ_ENTRIES": "2",
            "RECOLLECT_CONSUMER_BLOCK_MS": "50",
            "RECOLLECT_CONSUMER_DISCOVER_INTERVAL_S": "0.1",
            "RECOLLECT_CONSUMER_COMMIT_INTERVAL_S": "0.001",
            "RECOLLECT_CONSUMER_HEARTBEAT_S": "0.2",
            "RECOLLECT_LIVE_SNAPSHOT_INTERVAL_S": "0.2",
            # The events of these tests have the same date whenever they run.
            "RECOLLECT_LIVE_DAYS": "36500",
            "RECOLLECT_CONSUMER_TAKEOVER_S": str(TAKEOVER_S),
        }
        argv = [sys.executable, "-m", "ops", "consume", "--admin-port", str(self._free_port())]
        process = subprocess.Popen(argv, cwd=ROOT, env=environ, stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        log = self._folder / "logs" / name / "consumer.log"
        return log.read_text() if log.exists() else ""

    def appended(self) -> list[bytes]:
        return [self._line(producer, seq) for producer, end in sorted(self._next.items()) for seq in range(1, end)]

    def archived(self) -> list[bytes]:
        return sorted(read(self.archive, stored=True), key=lambda line: decode(line)[1:])

    def count(self) -> int:
        return sum(file.lines for file in committed_files(self.archive))

    def complete(self) -> bool:
        return self.count() >= sum(end - 1 for end in self._next.values())

    def is_prefix(self) -> bool:
        """Whether what is archived is the beginning of each producer's events, in order and each once."""
        found: dict[str, list[bytes]] = {producer: [] for producer in self._next}
        for line in read(self.archive, stored=True):
            found[decode(line).producer].append(line)
        return all(
            lines == [self._line(producer, seq) for seq in range(1, len(lines) + 1)]
            for producer, lines in found.items()
        )

    def account(self) -> dict[tuple[str, int], Progress]:
        with open_snapshot(self.archive) as archive:
            return dict(archive.progress)

    def check(self) -> None:
        assert self.archived() == self.appended()
        assert self.is_prefix()
        expected = {(name, 1): Progress(end - 1, archived=end - 1) for name, end in self._next.items()}
        assert self.account() == expected

    def flush_all(self) -> None:
        with self._redis.client() as client:
            client.flushall()

    def stored(self) -> dict[str, list[LiveEvent]]:
        """The live state in the files of the snapshot."""
        snapshot = StateSnapshot.open(self.state)
        return {user: snapshot.events(user) for user in live_state(self.archive)}

    async def check_live(self, after: int = 0) -> int:
        """A new follower of the feed has the live state that the archive has by definition.

        Args:
            after: Wait for a later generation than this one.

        Returns:
            The generation.
        """
        follower = LiveFollower(RedisFeedStream(self._redis.url), self.state)
        await follower.reader.connect()
        marks = {name: Position(1, end - 1) for name, end in self._next.items()}
        expected = live_state(self.archive)
        async with asyncio.timeout(20):
            while (
                follower.snapshot.generation <= after or follower.marks != marks or follower.state(expected) != expected
            ):
                await follower.read(50)
        await follower.reader.close()
        return follower.snapshot.generation

    async def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()
        await self._stream.close()


@pytest.fixture
async def site(tmp_path: Path, redis_server: Any, free_port: Callable[[], int]) -> AsyncIterator[Site]:
    site = Site(tmp_path, redis_server, free_port)
    yield site
    await site.end()


@pytest.mark.parametrize(
    "steps",
    [STEPS[:N_UNCOMMITTED], STEPS[N_UNCOMMITTED:], LIVE_STEPS],
    ids=["before the commit", "from the commit on", "live"],
)
async def test_consumers_killed_at_any_step_lose_and_duplicate_nothing(
    site: Site, await_until: AwaitUntil, steps: list[tuple[str, int]]
) -> None:
    """Each is killed at another step and leaves its work to the next; after each kill the archive is sound."""
    for step, hit in steps:
        for producer in ("p", "q"):
            await site.append(producer, 6)
        process = site.start(f"{step}:kill:{hit}")
        _, errors = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == -signal.SIGKILL, (step, hit, errors)
        assert site.is_prefix(), (step, hit)
    site.start()
    await await_until(site.complete, 30, what="everything to be archived")
    site.check()
    await site.check_live()


async def test_the_live_state_outlives_redis_and_its_own_files(site: Site, await_until: AwaitUntil) -> None:
    """FLUSHALL, a restart, and a restart without the snapshot: the same state, at a follower and on the disk."""
    await site.append("p", 12)
    process = site.start()
    await await_until(site.complete, 30, what="everything to be archived")
    generation = await site.check_live()
    site.flush_all()
    generation = await site.check_live(generation)
    for keeps_files in (True, False):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
        assert site.stored() == live_state(site.archive)
        if not keeps_files:
            shutil.rmtree(site.state)
        process = site.start()
        generation = await site.check_live(generation)


@pytest.mark.parametrize("step", ["consumer.read", "consumer.appended", "consumer.committing", "consumer.committed"])
async def test_a_frozen_consumer_is_replaced_and_duplicates_nothing(
    site: Site, await_until: AwaitUntil, step: str
) -> None:
    """Frozen within a round, replaced by the standby within the time it may take, and woken up again.

    In the middle of a transaction it holds the catalogue's lock, so the standby has to end it. At the other steps it
    holds the lock only if another of its threads is in a transaction.
    """
    await site.append("p", 12)
    zombie = site.start(f"{step}:pause:2", "zombie")
    await asyncio.to_thread(os.waitid, os.P_PID, zombie.pid, os.WSTOPPED | os.WNOWAIT)
    site.start(name="standby")
    await await_until(lambda: "StandingBy" in site.log("standby"), 60, what="the standby to begin")
    await await_until(site.complete, 30, what="the standby to take over")
    ended = zombie.poll() is not None
    assert ended or step != "consumer.committing"
    zombie.send_signal(signal.SIGCONT)
    await site.append("p", 12)
    await await_until(site.complete, 30, what="what came later")
    if ended:
        assert zombie.returncode == -signal.SIGKILL
        assert f'"pid": {zombie.pid}, "event": "FrozenProcessEnded"' in site.log("standby")
    else:
        await await_until(lambda: "LeaseLost" in site.log("zombie"), 10, what="the zombie to notice")
    site.check()


async def test_kills_at_random_moments_lose_and_duplicate_nothing(site: Site, await_until: AwaitUntil) -> None:
    """Six kills while events come."""
    chance = random.Random(7)
    going = True

    async def feed() -> None:
        while going:
            for producer in ("p", "q", "r"):
                await site.append(producer, 1, 20)
            await asyncio.sleep(0.05)

    feeding = asyncio.create_task(feed())
    try:
        for _ in range(6):
            before = site.count()
            process = site.start()
            await await_until(lambda before=before: site.count() > before, 30, what="progress")
            await asyncio.sleep(chance.uniform(0, 0.3))
            process.kill()
            await asyncio.to_thread(process.wait, 10)
            assert site.is_prefix()
    finally:
        going = False
        await feeding
    site.start()
    await await_until(site.complete, 30, what="everything to be archived")
    site.check()


async def test_a_stopped_consumer_first_archives_what_is_in_the_streams(site: Site, await_until: AwaitUntil) -> None:
    """SIGTERM with a backlog: it is archived, and then the process ends."""
    await site.append("p", 1)
    process = site.start()
    await await_until(site.complete, 30, what="the consumer to be at work")
    process.send_signal(signal.SIGSTOP)
    await site.append("p", 200)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(process.wait, 30) == 0
    site.check()


async def test_a_failure_of_the_job_itself_ends_it_with_a_sentence(site: Site) -> None:
    """`raise` is a bug on order: exit 1, and the next consumer goes on."""
    await site.append("p", 3)
    process = site.start("consumer.planned:raise")
    _, output = await asyncio.to_thread(process.communicate, None, 60)
    assert process.returncode == 1
    assert b"consumer.planned was asked to fail here" in output


async def test_an_unknown_failpoint_is_refused(site: Site) -> None:
    """A drill must not pass because of a misspelling."""
    process = site.start("consumer.judge:kill")
    _, output = await asyncio.to_thread(process.communicate, None, 60)
    assert process.returncode == 2
    assert b"RECOLLECT_FAILPOINT: 'consumer.judge' is not a failpoint" in output


DEADLY = """
import asyncio, os, signal, sys
from pathlib import Path
from telemetry.archive.archive import Archive
from telemetry.consumer.consumer import Consumer
from telemetry.settings import ConsumerSettings
from telemetry.live.live_event import LiveEvent
from telemetry.live.state_snapshot import StateSnapshot
from telemetry.stream.redis_feed_stream import RedisFeedStream
from telemetry.stream.redis_stream import RedisStream
from tests.reference.live_state import live_state

url, root, deadly = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(",")

def check(record):
    if record.event.event_id in deadly:
        os.kill(os.getpid(), signal.SIGKILL)

settings = ConsumerSettings(discover_interval_s=0.05, block_ms=50, commit_interval_s=0.0)
asyncio.run(Consumer(RedisStream(url), Archive(root), [], settings, check=check).run())
"""


async def test_events_that_kill_their_consumer_end_in_the_dead_letters(
    site: Site, await_until: AwaitUntil, redis_server: Any
) -> None:
    """Each on its third delivery, alone: those around it are archived, and so are other producers' events."""
    await site.append("a", 5)
    await site.append("p", 5)
    deadly = ["ev-p-00000013", "ev-p-00000017", "ev-p-00000032"]
    argv = [sys.executable, "-c", DEADLY, redis_server.url, str(site.archive), ",".join(deadly)]
    deaths = 0
    while site.count() < 97:
        process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT)
        dead = asyncio.create_task(process.wait())
        await await_until(lambda dead=dead: dead.done() or site.count() == 97, 60, what="the consumer to die or to end")
        if dead.done():
            assert dead.result() == -signal.SIGKILL
            deaths += 1
    process.kill()
    await dead
    # Three for the first one and one more for its neighbour; the third one's entry was delivered with theirs before.
    assert deaths == 6
    letters = list(read_letters(site.archive))
    assert [decode(letter.data).event.event_id for letter in letters] == deadly
    assert {letter.tries for letter in letters} == {3}
    assert site.account()["p", 1] == Progress(50, archived=47, dead_lettered=3)
    left = [line for line in site.appended() if decode(line).event.event_id not in deadly]
    assert site.archived() == left
    catalogue = Catalogue(site.archive)
    assert catalogue.database.sql.execute("SELECT * FROM attempts").fetchall() == []
    assert catalogue.watermarks()["p"] == Position(1, 50)
    catalogue.close()
