import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.commands.audit import audit, command
from ops.console.receipt import AuditReceipt
from ops.options.period import Period
from service.config import Config
from telemetry.archive.archive import Archive
from telemetry.archive.compaction import compact
from telemetry.audit.seq_runs import NEVER_CAME, STATES
from telemetry.catalogue.commit import CommitContent
from telemetry.consumer.consumer import Consumer
from telemetry.events import System
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support.archives.archive_commits import PRODUCER, addition, commit, line, seal
from tests.support.sample_events import feedback, served

EVENTS = [(seq, feedback(event_id=f"event-{seq}")) for seq in range(1, 9)]
FAST = ConsumerSettings(block_ms=10, discover_interval_s=0.05, commit_interval_s=0.0)
Await = Callable[..., Awaitable[None]]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


@pytest.fixture
def run(config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))

    def call(**options: Any) -> tuple[int, str]:
        return command(**options), capsys.readouterr().out

    return call


def sql(config: Config, statement: str) -> None:
    from telemetry.catalogue.catalogue import Catalogue

    catalogue = Catalogue(config.archive_dir)
    assert catalogue.database.sql.execute(statement).rowcount == 1
    catalogue.close()


def counts(receipt: AuditReceipt) -> dict[str, int]:
    names = (*STATES, "duplicated", "refused", "dropped")
    return {name: receipt.total(name) for name in names if receipt.total(name)}


class TestArchive:
    """Archives with something wrong, or nothing."""

    def test_nothing_at_all(self, config: Config, run: Callable[..., Any]) -> None:
        """A home that was never used is sound, and stays as it is."""
        assert run() == (0, "No event has been accepted.\n")
        assert json.loads(run(as_json=True)[1])["accepted"] == 0
        assert not config.home.exists()

    def test_a_sound_one(self, config: Config, run: Callable[..., Any]) -> None:
        """Several producers and epochs, every fate, before and after a compaction."""
        commit(
            config.archive_dir,
            addition(EVENTS[:4], [(5, "deduplicated"), (6, "dead_lettered"), (7, "erased")]),
            addition([(1, served())], epoch=2),
            addition([(1, feedback(event_id="other"))], producer="another"),
        )
        seal(config.archive_dir)
        for _ in range(2):
            receipt = audit(config, Period())
            assert receipt.ok, receipt.as_text()
            assert counts(receipt) == {"archived": 6, "deduplicated": 1, "dead_lettered": 1, "erased": 1}
            assert [(one.producer, one.epoch, one.accepted) for one in receipt.accounts] == [
                (PRODUCER, 1, 7),
                (PRODUCER, 2, 1),
                ("another", 1, 1),
            ]
            assert run()[0] == 0
            list(compact(config.archive_dir, "2027-01-01"))

    def test_an_event_that_never_came(self, config: Config, run: Callable[..., Any]) -> None:
        """The consumer saw the hole; the receipt names it and the exit is 1."""
        commit(config.archive_dir, addition(EVENTS[:3], [(4, "missing"), (5, "missing")]))
        code, out = run(as_json=True)
        result = json.loads(out)
        assert (code, result["missing"], result["accepted"], result["ok"], result["breaches"]) == (1, 2, 5, False, [])
        assert result["producers"][0]["holes"] == [
            {"first_seq": 4, "last_seq": 4, "why": NEVER_CAME},
            {"first_seq": 5, "last_seq": 5, "why": NEVER_CAME},
        ]

    @pytest.mark.parametrize(
        ("statement", "found"),
        [
            ("UPDATE progress SET archived = archived + 1", "the catalogue counts 9 archived, but 8 were found"),
            ("UPDATE progress SET seq = seq + 1", "the catalogue has handled 9 numbers, but accounts for 8"),
            ("UPDATE progress SET seq = 7", "number 8 is archived, but the catalogue's watermark is 7"),
            (
                f"INSERT INTO removed VALUES ('{PRODUCER}', 1, 3, 3, 'erased', NULL)",
                "number 3 is archived and erased at once",
            ),
            ("UPDATE files SET lines = 9", "has 8 lines, but 9 according to the catalogue"),
        ],
    )
    def test_a_catalogue_that_does_not_agree(self, config: Config, statement: str, found: str) -> None:
        """Every count is compared with what was found."""
        commit(config.archive_dir, addition(EVENTS))
        sql(config, statement)
        receipt = audit(config, Period())
        assert not receipt.ok
        assert found in "\n".join(receipt.breaches)

    def path(self, config: Config) -> Path:
        (path,) = config.archive_dir.glob("date=*/*")
        return path

    def test_a_file_that_is_gone(self, config: Config) -> None:
        """Its events are missing, each of them."""
        commit(config.archive_dir, addition(EVENTS[:5]))
        commit(config.archive_dir, addition(EVENTS[5:]))
        min(config.archive_dir.glob("date=*/*")).unlink()
        receipt = audit(config, Period())
        assert counts(receipt) == {"archived": 3, "missing": 5}
        assert "is in the catalogue, but not on the disk" in receipt.breaches[-1]

    def test_a_file_that_was_cut(self, config: Config) -> None:
        """Lines before the damage count."""
        commit(config.archive_dir, addition(EVENTS))
        data = self.path(config).read_bytes()
        self.path(config).write_bytes(data[: data.index(b"event-6")])
        receipt = audit(config, Period())
        assert counts(receipt) == {"archived": 5, "missing": 3}
        assert any("damaged" in breach for breach in receipt.breaches)

    def test_a_line_that_cannot_be_read(self, config: Config) -> None:
        """It is named by file and number, and its event is missing."""
        commit(config.archive_dir, addition(EVENTS))
        lines = self.path(config).read_bytes().splitlines(keepends=True)
        lines[2] = b"\0" * (len(lines[2]) - 1) + b"\n"
        self.path(config).write_bytes(b"".join(lines))
        receipt = audit(config, Period())
        assert counts(receipt) == {"archived": 7, "missing": 1}
        assert any(", line 3: " in breach for breach in receipt.breaches)

    def test_a_line_in_the_wrong_folder(self, config: Config) -> None:
        """A date's folder holds what was received on it."""
        added = addition(EVENTS)
        added.folders = {"date=2026-11-20": added.folders.popitem()[1]}
        commit(config.archive_dir, added)
        receipt = audit(config, Period())
        assert len(receipt.breaches) == 8
        assert "it was received at 2026-11-21" in receipt.breaches[0]

    def test_a_duplicated_number(self, config: Config) -> None:
        """A line that was written twice."""
        commit(config.archive_dir, addition(EVENTS))
        added = CommitContent(folders={"date=2026-11-21": [line(EVENTS[3][1], 4)]})
        commit(config.archive_dir, added)
        receipt = audit(config, Period())
        assert (counts(receipt), receipt.accounts[0].duplicates) == (
            {"archived": 8, "duplicated": 1},
            ("number 4 is archived twice",),
        )
        assert not receipt.ok

    def test_a_duplicated_id(self, config: Config, run: Callable[..., Any]) -> None:
        """The same feedback under two numbers, and the same list; both are reported by id."""
        lists = [(seq, served(event_id="list-1", recommendation_id="list-1")) for seq in (9, 10)]
        again = feedback(event_id="event-2", received_at="2026-11-21T05:00:00.000Z")
        commit(config.archive_dir, addition([*EVENTS, *lists]), addition([(1, again)], epoch=2))
        code, out = run()
        assert code == 1
        assert "of 11 accepted events 0 are missing and 2 duplicated" in out
        for name in ("event-2", "list-1"):
            assert f"the id {name} is archived under another number, too" in out

    def test_an_id_that_comes_again_after_the_window(self, config: Config) -> None:
        """Exactly once holds within the window of deduplication."""
        again = feedback(event_id="event-2", received_at="2026-11-29T05:00:00.000Z")
        commit(config.archive_dir, addition([*EVENTS, (9, again)]))
        assert audit(config, Period()).ok
        longer = replace(config, consumer=replace(config.consumer, seen_days=30))
        assert counts(audit(longer, Period()))["duplicated"] == 1

    def test_a_removed_dead_letter(self, config: Config) -> None:
        """A dead-lettered number is accounted for only with its letter."""
        commit(config.archive_dir, addition(EVENTS, [(9, "dead_lettered")]))
        assert audit(config, Period()).ok
        for path in config.archive_dir.glob("deadletters/*"):
            path.write_bytes(b"")
        sql(config, "UPDATE files SET bytes = 0, lines = 0 WHERE path LIKE 'dead%'")
        (breach,) = audit(config, Period()).breaches
        assert "number 9 is dead-lettered, but there is no letter" in breach

    def test_an_older_archive_is_refused(self, config: Config) -> None:
        """With a sentence that names the remedy."""
        from telemetry.errors import ArchiveError

        commit(config.archive_dir, addition(EVENTS))
        import sqlite3

        with sqlite3.connect(config.archive_dir / "catalogue.sqlite3") as db:
            db.execute("PRAGMA user_version = 1")
        with pytest.raises(ArchiveError, match="a consumer that starts upgrades it"):
            audit(config, Period())


class TestRange:
    """By when events were received."""

    @pytest.fixture
    def archived(self, config: Config) -> Config:
        """One event an hour, from midnight on; the third is missing, the fifth is a duplicate of the second."""
        times = [f"2026-11-21T{hour:02d}:00:00.000Z" for hour in range(8)]
        events = [(seq, feedback(event_id=f"e-{seq}", received_at=at)) for seq, at in enumerate(times, 1)]
        gap = System(
            event_id="gap",
            tenant="default",
            client_time=None,
            received_at="2026-11-21T08:00:00.000Z",
            kind="gap",
            of_class="served",
            count=6,
            reason="no budget",
        )
        kept = [(seq, event) for seq, event in events if seq not in {3, 5}]
        added = addition([*kept, (9, gap)], [(3, "missing"), (5, "deduplicated")])
        added.removed[1] = added.removed[1]._replace(received_at=times[4])
        commit(config.archive_dir, added)
        return config

    @pytest.mark.parametrize(
        ("start", "end", "found"),
        [
            (None, None, {"archived": 7, "missing": 1, "deduplicated": 1, "dropped": 6}),
            ("2026-11-22", None, {}),
            (None, "2026-11-20", {}),
            ("2026-11-21T02:30:00Z", None, {"archived": 5, "deduplicated": 1, "dropped": 6}),
            (None, "2026-11-21T01:30:00Z", {"archived": 2, "missing": 1}),
            ("2026-11-21T04:00:00Z", "2026-11-21T06:00:00Z", {"archived": 1, "deduplicated": 1}),
        ],
    )
    def test_what_is_counted(self, archived: Config, start: str | None, end: str | None, found: dict[str, int]) -> None:
        """Lines by their time, a hole by the numbers around it, drops by their record."""
        receipt = audit(archived, Period.parse(start, end))
        assert counts(receipt) == found
        assert receipt.ok == ("missing" not in found)

    def test_the_account_is_balanced_over_everything(self, archived: Config) -> None:
        """A wrong count is a breach, whatever the period."""
        sql(archived, "UPDATE progress SET archived = archived + 1")
        assert not audit(archived, Period.parse("2026-11-22", None)).ok


@asynccontextmanager
async def producing(config: Config, server: MemoryServer, slot: int = 0) -> AsyncIterator[Producer]:
    settings = ProducerSettings(check_interval_s=0.05, linger_s=0.0)
    producer = Producer(config.spool_dir, slot, settings, MemoryStream(server))
    task = asyncio.create_task(producer.run())
    try:
        yield producer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        producer.close()


@asynccontextmanager
async def consuming(config: Config, server: MemoryServer) -> AsyncIterator[Consumer]:
    consumer = Consumer(MemoryStream(server), Archive(config.archive_dir), [], FAST)
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestSpool:
    """Events that are accepted and not archived."""

    async def test_in_flight_and_then_archived(self, config: Config, run: Callable[..., Any]) -> None:
        """Without a consumer everything is in flight, live and stopped, which is a breach only after --wait."""
        server = MemoryServer()
        async with producing(config, server) as producer:
            await producer.accept([feedback(event_id=f"event-{number}") for number in range(20)])
            receipt = audit(config, Period())
            assert (receipt.ok, counts(receipt)) == (True, {"in_flight": 20})
            assert receipt.slots == {producer.producer_id: 0}
        assert counts(audit(config, Period())) == {"in_flight": 20}
        code, out = run(wait_s=0.1)
        assert code == 1
        assert "20 events were still in flight after 0.1 s" in out
        async with consuming(config, server), producing(config, server):
            receipt = await asyncio.to_thread(audit, config, Period(), 10.0)
        assert (receipt.ok, receipt.total("in_flight")) == (True, 0)
        assert receipt.accounts[0].counts["archived"] == 20

    async def test_a_removed_log(self, config: Config) -> None:
        """Accepted events that are nowhere are missing, by number."""
        server = MemoryServer()
        async with producing(config, server) as producer:
            await producer.accept([feedback(event_id=f"event-{number}") for number in range(20)])
        segments = list(config.spool_dir.glob("0/*.wal"))
        assert segments
        for path in segments:
            path.unlink()
        receipt = audit(config, Period(), retry_pause_s=0)
        assert counts(receipt) == {"missing": 20}
        assert receipt.accounts[0].holes[0][:2] == (1, 20)

    async def test_a_damaged_log(self, config: Config) -> None:
        """The events that cannot be read are missing, the others in flight."""
        server = MemoryServer()
        async with producing(config, server) as producer:
            for number in range(5):
                await producer.accept([feedback(event_id=f"event-{number}")])
        (segment,) = config.spool_dir.glob("0/*.wal")
        data = segment.read_bytes()
        segment.write_bytes(data.replace(b"event-2", b"event-X"))
        receipt = audit(config, Period(), retry_pause_s=0)
        assert counts(receipt) == {"in_flight": 4, "missing": 1}
        assert receipt.accounts[0].holes[0][:2] == (3, 3)

    async def test_refusals_and_drops_count_before_and_after_they_are_recorded(self, config: Config) -> None:
        """What was offered is what was accepted, refused and dropped."""
        server = MemoryServer()
        small = ProducerSettings(spool_bytes=262_144, ring_bytes=131_072, check_interval_s=0.05)
        producer = Producer(config.spool_dir, 0, small, MemoryStream(server))
        offered = 600
        for number in range(offered):
            producer.offer(served(event_id=f"event-{number}", recommendation_id=f"event-{number}"))
        dropped = producer.counters.served.dropped
        assert dropped
        receipt = audit(config, Period())
        result = receipt.as_json()
        assert (result["dropped"], result["offered"]) == (dropped, offered)
        task = asyncio.create_task(producer.run())
        async with consuming(config, server):
            await asyncio.to_thread(audit, config, Period(), 10.0)
            producer.offer(served(event_id="late", recommendation_id="late"))
            receipt = await asyncio.to_thread(audit, config, Period(), 10.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        producer.close()
        result = receipt.as_json()
        assert receipt.ok, receipt.as_text()
        assert (result["dropped"], result["producers"][0]["gaps"]) == (
            dropped,
            [{"class": "served", "reason": "no budget", "count": dropped}],
        )
        # The record of the drops is an event, too.
        assert result["accepted"] == offered - dropped + 2

    async def test_while_everything_runs(self, config: Config, await_until: Await) -> None:
        """Two producers, one restarted again and again, a consumer and compactions: never a false alarm."""
        server = MemoryServer()
        over = asyncio.Event()
        sent = 0

        async def report(slot: int, *, restart: bool) -> None:
            nonlocal sent
            while not over.is_set():
                async with producing(config, server, slot) as producer:
                    for _ in range(30 if restart else 10**6):
                        sent += 1
                        producer.offer(served(event_id=f"list-{sent}", recommendation_id=f"list-{sent}"))
                        await producer.accept([feedback(event_id=f"event-{sent}")])
                        if over.is_set():
                            break
                    if over.is_set():
                        # It is not started again to ship the rest.
                        await producer.drain(20)

        async with consuming(config, server) as consumer:
            tasks = [asyncio.create_task(report(0, restart=False)), asyncio.create_task(report(1, restart=True))]
            await await_until(lambda: consumer.counters.archived > 100)
            for _ in range(12):
                receipt = await asyncio.to_thread(audit, config, Period())
                assert receipt.ok, receipt.as_text()
            over.set()
            await asyncio.gather(*tasks)
            receipt = await asyncio.to_thread(audit, config, Period(), 20.0)
        assert receipt.ok, receipt.as_text()
        assert (receipt.total("in_flight"), len(receipt.accounts) > 2) == (0, True)
        assert receipt.total("archived") >= 2 * sent
