import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ops.cli import application
from ops.console.command_runner import run
from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.archive.archive_reader import read
from telemetry.archive.dead_letters import DeadLetter, encode_letter, read_letters, set_state
from telemetry.catalogue.commit import CommitContent, Progress
from telemetry.consumer.consumer import Consumer
from telemetry.events import Event, decode, encode
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.redis_stream import RedisStream
from telemetry.wal.slot_inspection import spooled_lines
from tests.support import sample_events

AT = "2026-11-21T01:02:03.456Z"
Recollect = Callable[..., tuple[int, str, str]]
Archived = Callable[[int], list[Event]]

LIST = sample_events.served(event_id="sv-000001")
CLICK = sample_events.feedback(event_id="ev-000002", user_id="zoë")


def letter(name: str, data: bytes, **changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {"entry_id": "1-9", "first_seq": 9, "seq": 9, "reason": "oops", "tries": 3} | changes
    return DeadLetter(letter_id=name, at=AT, producer="p", data=data, **fields)


LETTERS = [
    letter("good", encode(LIST, "p", 1, 9)),
    letter("entry", encode(CLICK, "p", 1, 1) + encode(LIST, "p", 1, 2), seq=None, first_seq=1, entry_id="1-2"),
    letter("bad", b"{nonsense\n", reason="the line is not JSON: " + "x" * 100),
    letter("worse", b"\xff\n"),
]


@pytest.fixture
def home(tmp_path: Path, redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path))
    monkeypatch.setenv("RECOLLECT_REDIS_URL", redis_server.url)

    async def fill() -> None:
        archive = Archive(tmp_path / "archive")
        await archive.acquire(1.0)
        added = CommitContent(
            {DEAD_LETTERS: [encode_letter(one) for one in LETTERS]}, {("p", 1): Progress(9, dead_lettered=9)}
        )
        await archive.commit(added)
        # Its consumer has been there.
        stream = RedisStream(redis_server.url)
        await stream.connect()
        await stream.mark_if_unmarked(archive.identity)
        await stream.close()
        await archive.close()

    asyncio.run(fill())
    return tmp_path


@pytest.fixture
def recollect(capsys: pytest.CaptureFixture[str]) -> Recollect:
    def call(*argv: str) -> tuple[int, str, str]:
        code = run(application(["deadletters"]), ["deadletters", *argv])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def archived(home: Path, redis_server: Any, await_until: Callable[..., Awaitable[None]]) -> Archived:
    """Return a function that lets a consumer archive so many events and returns all that are archived."""

    async def consume(count: int) -> None:
        settings = ConsumerSettings(discover_interval_s=0.05, block_ms=20)
        consumer = Consumer(RedisStream(redis_server.url), Archive(home / "archive"), [], settings)
        task = asyncio.create_task(consumer.run())
        await await_until(lambda: len(list(read(home / "archive"))) >= count, 20)
        assert await consumer.drain(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def call(count: int) -> list[Event]:
        asyncio.run(consume(count))
        return [decode(line).event for line in read(home / "archive")]

    return call


def test_letters_are_listed_with_their_reasons(home: Path, recollect: Recollect) -> None:
    """As a table, and whole as JSON; settled ones only with --all."""
    set_state(home / "archive", ["worse"], "dropped", AT)
    code, table, _ = recollect("list")
    assert code == 0
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["id", "at", "producer", "entry", "seq", "tries", "state", "reason"]
    assert [(row[0], row[3], row[4], row[6]) for row in rows[1:]] == [
        ("good", "1-9", "9", "open"),
        ("entry", "1-2", "all", "open"),
        ("bad", "1-9", "9", "open"),
    ]
    assert max(map(len, table.splitlines())) < 150
    code, text, _ = recollect("list", "--all", "--json")
    result = json.loads(text)
    assert (code, [row["state"] for row in result]) == (0, ["open", "open", "open", "dropped"])
    assert result[0]["data"] == LETTERS[0].data.decode()
    assert result[2]["reason"] == LETTERS[2].reason


def test_retried_letters_become_events_once(home: Path, recollect: Recollect, archived: Archived) -> None:
    """Readable events keep their id and time; an unreadable letter stays, with the reason."""
    code, out, _ = recollect("retry", "--all", "--json")
    result = json.loads(out)
    assert (code, result["retried"], result["not_shipped"]) == (1, ["good", "entry"], 0)
    assert "not JSON" in result["left"]["bad"]
    assert archived(3) == [LIST, CLICK, LIST]
    assert [one.letter_id for one in read_letters(home / "archive")] == ["bad", "worse"]
    code, _, error = recollect("retry", "good")
    assert (code, "no open dead letter good" in error) == (2, True)
    code, out, _ = recollect("retry", "bad", "worse")
    assert code == 1
    assert out.splitlines()[0] == "0 of 2 letters retried."
    assert out.splitlines()[1].startswith("bad stays: The line is not JSON")
    assert len(archived(3)) == 3


def test_without_redis_the_events_wait_in_the_spool(
    home: Path, recollect: Recollect, redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retried means on the disk; the consumer job ships the orphaned slot."""
    monkeypatch.setattr("ops.commands.deadletters._SHIP_S", 0.1)
    redis_server.stop()
    code, out, _ = recollect("retry", "good")
    assert code == 0
    assert out == "1 of 1 letters retried.\n1 events wait in the spool for Redis; the consumer job ships them.\n"
    assert [decode(line).event for _, line in spooled_lines(home / "spool")] == [LIST]


def test_an_interrupted_retry_is_not_repeated(
    home: Path, recollect: Recollect, redis_server: Any, archived: Archived
) -> None:
    """Killed after the events were accepted: they are found; killed before: they are accepted now."""

    async def accept() -> None:
        producer = Producer(home / "spool", None, ProducerSettings(), RedisStream(redis_server.url))
        task = asyncio.create_task(producer.run())
        await producer.accept([LIST])
        await producer.drain(2)
        producer.close()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(accept())
    set_state(home / "archive", ["good", "entry"], "retrying", AT)
    code, out, _ = recollect("list")
    assert [line.split()[6] for line in out.splitlines()[1:3]] == ["retrying", "retrying"]
    code, out, _ = recollect("retry", "good", "entry", "--json")
    assert (code, json.loads(out)["retried"]) == (0, ["good", "entry"])
    assert archived(3) == [LIST, CLICK, LIST]


def test_dropped_letters_are_kept_and_not_listed(home: Path, recollect: Recollect) -> None:
    """Nothing is deleted; the letter is only marked."""
    assert recollect("drop", "bad", "--json") == (0, '{"dropped": ["bad"]}\n', "")
    assert recollect("drop", "--all") == (0, "3 letters dropped.\n", "")
    assert recollect("list") == (0, "No open dead letters.\n", "")
    assert recollect("retry", "--all") == (0, "0 of 0 letters retried.\n", "")
    assert len(list(read_letters(home / "archive", settled=True))) == 4
    assert not (home / "spool").exists()


@pytest.mark.parametrize("argv", [("retry",), ("drop",), ("retry", "good", "--all"), ("drop", "nobody")])
def test_letters_must_be_named(home: Path, recollect: Recollect, argv: tuple[str, ...]) -> None:
    """Neither nothing nor everything by accident."""
    code, out, error = recollect(*argv)
    assert (code, out) == (2, "")
    assert error.startswith("recollect: ")
    assert len(list(read_letters(home / "archive"))) == 4


def test_without_an_archive_there_are_no_letters(
    tmp_path: Path, recollect: Recollect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing works; retrying or dropping is refused."""
    monkeypatch.setenv("RECOLLECT_HOME", str(tmp_path))
    assert recollect("list") == (0, "No open dead letters.\n", "")
    assert recollect("list", "--all", "--json") == (0, "[]\n", "")
    code, _, error = recollect("drop", "--all")
    assert (code, "There is no archive" in error) == (1, True)
