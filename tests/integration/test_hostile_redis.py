"""A Redis that loses parts of a stream, forges watermarks, or is full; with real processes."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.stream.key_names import KeyNames
from telemetry.stream.redis_stream import GROUP
from tests.integration.lone_replica import Site

Until = Callable[..., None]


class HostileSite(Site):
    """A replica and a consumer, and what a test does to them and their Redis."""

    def __init__(self, folder: Path, redis: Any, free_port: Callable[[], int]) -> None:
        super().__init__(folder, redis.url, free_port)
        self.redis = redis
        # One event an entry, so that there is something to lose between them.
        self.environ["RECOLLECT_TELEMETRY_BATCH_EVENTS"] = "1"
        self.environ["RECOLLECT_TELEMETRY_CHECK_INTERVAL_S"] = "0.1"
        self.environ["RECOLLECT_SPOOL_SEGMENT_AGE_S"] = "0.1"
        self.environ["RECOLLECT_CONSUMER_DISCOVER_INTERVAL_S"] = "0.1"
        self.posted = 0
        self.consumer_pid = 0

    def start_consumer(self, output: Any = subprocess.DEVNULL, *, claim: bool = False) -> None:
        super().start_consumer(output, claim=claim)
        self.consumer_pid = self.running[-1].pid

    def stop_consumer(self) -> None:
        consumer = next(process for process in self.running if process.pid == self.consumer_pid)
        self.running.remove(consumer)
        consumer.terminate()
        consumer.wait(timeout=30)

    def restart_replica(self) -> None:
        replica = next(process for process in self.running if process.pid == self.replica_pid)
        self.running.remove(replica)
        replica.kill()
        replica.wait()
        self.start_replica()

    def post(self, count: int, *, together: bool = False) -> None:
        """Report events, one request each or all in one; every request is answered 202."""
        numbers = range(self.posted, self.posted + count)
        events = [
            {"event_id": f"event-{number:06d}", "type": "click", "user_id": f"u{number % 7}", "item_id": "i1"}
            for number in numbers
        ]
        for some in [events] if together else [[event] for event in events]:
            assert self.report(some) == 202
        self.posted += count

    def refused(self) -> bool:
        """Whether Redis refuses the replica's batches."""
        return self.metric("recollect_telemetry_connected") == 0

    def report(self, events: list[dict[str, Any]], **headers: str) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/events",
            json.dumps({"events": events}).encode(),
            {"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def freeze_consumer(self) -> None:
        os.kill(self.consumer_pid, signal.SIGSTOP)

    def thaw_consumer(self) -> None:
        os.kill(self.consumer_pid, signal.SIGCONT)

    @property
    def producer(self) -> str:
        return str(json.loads((self.home / "spool" / "0" / "producer.json").read_bytes())["producer"])

    @property
    def key(self) -> str:
        return KeyNames().events(self.producer)

    @property
    def epoch(self) -> int:
        return int(json.loads((self.home / "spool" / "0" / "producer.json").read_bytes())["epoch"])

    def doubts(self) -> int:
        """Count the watermarks that the replica doubted; a huge number if its write-ahead log was released."""
        if not any((self.home / "spool" / "0").glob("*.wal")):
            return 10**9
        return self.metric("recollect_telemetry_watermarks_doubted_total")

    def shipped(self) -> bool:
        """Whether the last posted event is the newest stream entry."""
        with self.redis.client() as client:
            newest = client.xrevrange(self.key, count=1)
            return bool(newest) and f"event-{self.posted - 1:06d}".encode() in newest[0][1][b"data"]

    def emptied(self) -> bool:
        """Whether the stream is empty."""
        with self.redis.client() as client:
            return int(client.xlen(self.key)) == 0

    def all_archived(self) -> bool:
        return self.has_archived({f"event-{number:06d}" for number in range(self.posted)})

    def audit(self) -> dict[str, Any]:
        argv = [sys.executable, "-m", "ops", "audit", "--json", "--wait", "20"]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=60, check=False)
        return dict(json.loads(done.stdout))


@pytest.fixture
def hostile(
    tmp_path: Path,
    redis_server: Any,
    free_port: Callable[[], int],
    wait_until: Until,
    make_snapshot: Callable[..., Any],
    publish_snapshot: Callable[..., str],
) -> Iterator[HostileSite]:
    site = HostileSite(tmp_path, redis_server, free_port)
    publish_snapshot(site.home / "models", make_snapshot(n_users=20))
    try:
        site.start_replica()
        site.start_consumer()
        wait_until(site.ready, 30, what="the replica and the consumer")
        yield site
    finally:
        site.end()


def _ids(client: Any, key: str) -> list[str]:
    return [entry_id.decode() for entry_id, _ in client.xrange(key)]


def _replace(client: Any, key: str) -> None:
    place = _ids(client, key)[3]
    client.delete(key)
    client.xadd(key, {"anything": "else"}, id=place)


DAMAGES: dict[str, Callable[[Any, str], object]] = {
    "all of it": lambda client, key: client.xtrim(key, maxlen=0, approximate=False),
    "the oldest": lambda client, key: client.xtrim(key, maxlen=4, approximate=False),
    "one in the middle": lambda client, key: client.xdel(key, _ids(client, key)[5]),
    "the newest": lambda client, key: client.xdel(key, *_ids(client, key)[-2:]),
    "here and there": lambda client, key: client.xdel(key, *_ids(client, key)[1::2]),
    "all of it, and got something else for it": _replace,
    "nothing, and stands where nothing of ours can": lambda client, key: client.xadd(
        key, {"anything": "else"}, id=f"{2**60}-1"
    ),
    "and says that it got further": lambda client, key: client.execute_command(
        "XSETID", key, f"{_ids(client, key)[-1]}000"
    ),
}


def test_what_redis_loses_of_a_stream_is_sent_again(hostile: HostileSite, wait_until: Until) -> None:
    """Any part of it, with and without events after it, while the consumer is frozen; and nothing is duplicated."""
    hostile.post(3)
    wait_until(hostile.all_archived, 20, what="the first events")
    for name, damage in DAMAGES.items():
        for later in (0, 1):
            hostile.freeze_consumer()
            try:
                hostile.post(10)
                wait_until(hostile.shipped, 10, what="the stream to have all")
                with hostile.redis.client() as client:
                    damage(client, hostile.key)
                hostile.post(later)
            finally:
                hostile.thaw_consumer()
            wait_until(hostile.all_archived, 20, what=f"everything, after Redis had lost {name} ({later} more)")
            wait_until(hostile.emptied, 20, what=f"the stream to be in order, after Redis had lost {name}")
    report = hostile.audit()
    assert (report["ok"], report["missing"], report["duplicated"]) == (True, 0, 0), report


def test_a_consumer_that_dies_over_a_gap_leaves_it_to_the_next(hostile: HostileSite, wait_until: Until) -> None:
    """Before and after the stream was removed."""
    for failpoint in ("gap.due", "gap.removed"):
        hostile.stop_consumer()
        hostile.environ["RECOLLECT_FAILPOINT"] = f"{failpoint}:kill"
        hostile.post(4)
        wait_until(hostile.shipped, 10, what="the stream to have all")
        with hostile.redis.client() as client:
            client.xdel(hostile.key, _ids(client, hostile.key)[1])
        hostile.start_consumer()
        victim = hostile.running[-1]
        wait_until(
            lambda victim=victim: victim.poll() == -signal.SIGKILL, 20, what=f"the consumer to die at {failpoint}"
        )
        hostile.running.remove(victim)
        hostile.environ["RECOLLECT_FAILPOINT"] = ""
        hostile.start_consumer()
        wait_until(hostile.all_archived, 20, what=f"everything after {failpoint}")
    report = hostile.audit()
    assert (report["ok"], report["missing"], report["duplicated"]) == (True, 0, 0), report


def test_keys_of_another_kind_stop_nothing_for_good(hostile: HostileSite, wait_until: Until) -> None:
    """Whatever took the place of ours gives way, and no event is lost over it."""
    hostile.post(2)
    wait_until(hostile.all_archived, 20, what="the first events")
    keys = KeyNames()
    for key in (hostile.key, keys.watermark(hostile.producer), keys.producers):
        hostile.freeze_consumer()
        try:
            hostile.post(2)
            wait_until(hostile.shipped, 10, what="the stream to have all")
            with hostile.redis.client() as client:
                client.set(key, b"something else")
            hostile.post(2)
        finally:
            hostile.thaw_consumer()
        wait_until(hostile.all_archived, 20, what=f"everything, with something else in {key}")
    report = hostile.audit()
    assert (report["ok"], report["missing"], report["duplicated"]) == (True, 0, 0), report


def test_a_full_redis_is_archived_and_emptied_by_itself(hostile: HostileSite, wait_until: Until) -> None:
    """Also without the group, which a full Redis does not make, and without a higher limit."""
    hostile.post(2)
    wait_until(hostile.all_archived, 20, what="the first events")
    hostile.freeze_consumer()
    with hostile.redis.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
        while not hostile.refused():
            hostile.post(50, together=True)
        assert client.xgroup_destroy(hostile.key, GROUP)
        hostile.thaw_consumer()
        wait_until(hostile.all_archived, 40, what="everything, with Redis full")
        report = hostile.audit()
        assert (report["ok"], report["missing"], report["duplicated"]) == (True, 0, 0), report
        # Full of what is not ours: what comes now waits in the log, lists and events are answered as ever.
        client.config_set("maxmemory", 1)
        hostile.post(5)
        client.config_set("maxmemory", 0)
    wait_until(hostile.all_archived, 20, what="what came while Redis was full")


def test_a_watermark_that_the_archive_did_not_write_releases_nothing(hostile: HostileSite, wait_until: Until) -> None:
    """Any value, new, old or of another epoch, is reported, and no event is lost or duplicated."""
    hostile.post(3)
    wait_until(hostile.all_archived, 20, what="the first events")
    with hostile.redis.client() as client:
        watermark = KeyNames().watermark(hostile.producer)
        wait_until(lambda: client.hget(watermark, "seq") == b"3", 10, what="its watermark")
        genuine = client.hgetall(watermark)
        forgeries: list[dict[Any, Any]] = [
            {"epoch": hostile.epoch, "seq": 13},
            {"epoch": hostile.epoch, "seq": 10**6},
            {"epoch": hostile.epoch + 5, "seq": 1},
            {**genuine, b"seq": 13},
            {**genuine, b"mac": b"0" * 32, b"seq": 13},
            {"epoch": "x", "seq": ""},
        ]
        hostile.freeze_consumer()
        try:
            hostile.post(10)
            wait_until(hostile.shipped, 10, what="the stream to have all")
            client.xtrim(hostile.key, maxlen=0, approximate=False)
            for forgery in forgeries:
                before = hostile.doubts()
                client.delete(watermark)
                client.hset(watermark, mapping=forgery)
                wait_until(lambda before=before: hostile.doubts() > before + 1, 10, what=f"{forgery} to be seen")
            client.hset(watermark, mapping={b"seq": 1, b"epoch": hostile.epoch})
        finally:
            hostile.thaw_consumer()
        wait_until(hostile.all_archived, 20, what="everything")
        client.hset(watermark, mapping=genuine)
        hostile.post(2)
        wait_until(hostile.all_archived, 20, what="everything after an old watermark came again")
    report = hostile.audit()
    assert (report["ok"], report["missing"], report["duplicated"]) == (True, 0, 0), report


def test_an_id_that_two_users_send_loses_no_event(hostile: HostileSite, wait_until: Until) -> None:
    """Every event that was answered 202 is archived, and what was sent twice is archived once."""

    def event(user: str, item: str, **more: Any) -> dict[str, Any]:
        return {"event_id": "shared-id-0001", "type": "purchase", "user_id": user, "item_id": item, **more}

    sent = [event("u1", "i1"), event("u2", "i1"), event("u1", "i2"), event("u1", "i1", value=3.0)]
    for one in [*sent, *sent]:
        assert hostile.report([one]) == 202
    # Keys are one replica's knowledge; its successor knows none, as another replica of many would not.
    bodies = [{"type": "click", "user_id": f"u{number % 3}", "item_id": f"i{number}"} for number in range(4)]
    for key in ("client-key-0001", "ngx-client-key-0001"):
        statuses = [hostile.report([body], **{"Idempotency-Key": key}) for body in (bodies[0], bodies[0], *bodies[1:])]
        assert statuses == [202, 202, *[422] * 3]
    for body in bodies:
        hostile.restart_replica()
        wait_until(hostile.ready, 30, what="the next replica")
        assert hostile.report([body], **{"Idempotency-Key": "client-key-0002"}) == 202
    report = hostile.audit()
    assert (report["ok"], report["missing"], report["duplicated"], report["deduplicated"]) == (True, 0, 0, 6), report
    found = Counter(
        (line["event_id"][:15], line["user_id"], line["item_id"], line["value"], "id_conflict" in line["marks"])
        for line in hostile.archived()
        if line["class"] == "feedback"
    )
    expected = [
        ("shared-id-0001", "u1", "i1", None, False),
        ("shared-id-0001", "u2", "i1", None, False),
        ("shared-id-0001", "u1", "i2", None, True),
        ("shared-id-0001", "u1", "i1", 3.0, True),
        ("client-key-0001", "u0", "i0", None, False),
        ("ngx-client-key-", "u0", "i0", None, False),
        *(("client-key-0002", f"u{number % 3}", f"i{number}", None, number > 2) for number in range(4)),
    ]
    assert found == Counter(expected)
