import asyncio
import json
import secrets
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.cli import application
from ops.commands.audit import audit, command
from ops.commands.audit_erasure import search
from ops.console.command_runner import run
from ops.offline.frozen_state import freeze
from ops.options.period import Period
from service.config import Config
from service.generation.erasure.chosen_users import named
from service.generation.erasure.folder_erasure import erase_below
from service.generation.erasure.shard_erasure import users_named
from service.generation.files.output_folder import OutputFolder
from service.models.publication.user_erasure import ModelUserEraser
from service.models.snapshot import ModelSnapshot
from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.archive.compaction import compact
from telemetry.batch import Position
from telemetry.consumer.consumer import Consumer
from telemetry.erasure.erasure import read_receipts
from telemetry.events import Event, Record, System, encode
from telemetry.failpoints import Failpoints
from telemetry.ids import uuid7
from telemetry.live.event_layer import user_key
from telemetry.live.layer_merge import KeepRules
from telemetry.live.live_event import live_event, unix_ms
from telemetry.live.state_manifest import StateManifest
from telemetry.live.state_store import StateStore
from telemetry.producer import Producer
from telemetry.settings import ConsumerSettings, ProducerSettings
from telemetry.stream.memory_stream import MemoryServer, MemoryStream
from tests.support.archives.archive_commits import addition, commit, letter, seal
from tests.support.generated_lists import generated_lists
from tests.support.sample_events import feedback, served

FAST = ConsumerSettings(block_ms=10, discover_interval_s=0.05, commit_interval_s=0.0)
Await = Callable[..., Awaitable[None]]
Publish = Callable[[Path, ModelSnapshot], str]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


@pytest.fixture
def audit_erased(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))

    def call(user_id: str, **options: Any) -> tuple[int, str]:
        return command(erased=user_id, **options), capsys.readouterr().out

    return call


def erase(user_id: str) -> System:
    return System(
        event_id=uuid7(),
        tenant="default",
        client_time=None,
        received_at="2026-11-21T12:00:00.000Z",
        kind="erase",
        user_id=user_id,
    )


async def through(config: Config, await_until: Await, *events: Any) -> None:
    """Send events from a replica through the consumer, and wait until every erase among them is done."""
    server = MemoryServer()
    producer = Producer(config.spool_dir, 0, ProducerSettings(check_interval_s=0.05), MemoryStream(server))
    eraser = ModelUserEraser(config.models_dir, config.pseudonymiser())
    consumer = Consumer(MemoryStream(server), Archive(config.archive_dir), [], FAST, user_erasers=[eraser])
    tasks = [asyncio.create_task(producer.run()), asyncio.create_task(consumer.run())]
    await producer.accept(events)
    expected = sum(isinstance(event, System) for event in events)

    def done() -> bool:
        found = read_receipts(config.archive_dir) if config.archive_dir.is_dir() else []
        return producer.counters.released + consumer.counters.archived >= len(events) and (
            sum(receipt.done_at is not None for receipt in found) >= expected
        )

    await await_until(done)
    tasks.pop(0).cancel()
    await producer.drain(5, archived=True)
    producer.close()
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_an_unknown_user(config: Config, audit_erased: Callable[..., tuple[int, str]]) -> None:
    """Neither lines nor a receipt, in a home that was used or not."""
    expected = 'Nothing was found of user "nobody", and no erasure of this user was requested.\n'
    assert audit_erased("nobody") == (0, expected)
    commit(config.archive_dir, addition([(1, feedback())]))
    assert audit_erased("nobody") == (0, expected)


async def test_every_place_is_searched(
    config: Config,
    audit_erased: Callable[..., tuple[int, str]],
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Publish,
) -> None:
    """Lines of any class, compacted or not, dead letters, spool, live state and models; u10 is another user."""
    events: list[tuple[int, Event]] = [
        *((1, feedback(user_id="u1")), (2, served(user_id="u1"))),
        *((3, feedback(user_id="u10", item_id="u1")), (5, feedback(user_id="u1", event_id="event-5"))),
    ]
    dead = addition(events[3:])
    dead.folders[DEAD_LETTERS] = [letter(4, data=b'{"user_id":"u1","broken')]

    def fill() -> None:
        commit(config.archive_dir, addition(events[:3]))
        seal(config.archive_dir)
        list(compact(config.archive_dir, "2027-01-01"))
        commit(config.archive_dir, dead)
        store = StateStore(config.state_dir)
        records = (Record(event, "p", 1, seq) for seq, event in events)
        store.add([event for event in map(live_event, records) if event is not None], KeepRules(10, 0))
        # What readers leave out is found, too.
        hidden = {user_key("u1").hex(): unix_ms("2027-01-01T00:00:00.000Z")}
        store.save(StateManifest("a", Position(1, 0), {}, 0, 365, 10, (), erased=hidden))

    await asyncio.to_thread(fill)
    version = publish_snapshot(config.models_dir, make_snapshot())
    producer = Producer(config.spool_dir, 0, ProducerSettings(), MemoryStream(MemoryServer()))
    producer.offer(served(user_id="u1"))
    producer.close()
    code, out = audit_erased("u1", as_json=True)
    result = json.loads(out)
    assert (code, result["ok"], result["receipts"]) == (1, False, [])
    assert {place.rpartition("/")[0] or place: count for place, count in result["left"].items()} == {
        "archive/date=2026-11-21": 1,
        "archive/deadletters": 1,
        "models": 1,
        "spool": 1,
        "state": 2,
    }
    assert sorted(result["left"].values()) == [1, 1, 1, 1, 2, 2]
    assert f"models/{version}" in result["left"]
    assert audit_erased("u1")[1].endswith('User "u1" is in 6 places; no erasure of this user was requested.\n')


async def test_after_an_erasure_nothing_is_left(
    config: Config,
    audit_erased: Callable[..., tuple[int, str]],
    await_until: Await,
    make_snapshot: Callable[..., ModelSnapshot],
    publish_snapshot: Publish,
) -> None:
    """The id finds the receipt; the audit still balances; and the user may come back."""
    publish_snapshot(config.models_dir, make_snapshot())
    mine = [feedback(user_id="u1", event_id=f"event-{number}") for number in range(3)]
    await through(config, await_until, *mine, feedback(user_id="u2", event_id="event-9"))
    assert search(config, "u1").left
    await asyncio.to_thread(seal, config.archive_dir)
    list(compact(config.archive_dir, "2027-01-01"))
    await through(config, await_until, erase("u1"))
    code, out = audit_erased("u1")
    assert (code, out.splitlines()[-1]) == (0, 'Nothing is left of user "u1" from before the erase request.')
    assert "requested 2026-11-21T12:00:00.000Z, done" in out
    assert "3 lines erased from 1 files, 1 models published anew" in out
    receipt = audit(config, Period(), 5.0)
    assert (receipt.ok, receipt.total("erased")) == (True, 3), receipt.as_text()
    assert audit_erased("u2")[0] == 1
    back = feedback(user_id="u1", event_id="event-back", received_at="2026-11-21T13:00:00.000Z")
    await through(config, await_until, back)
    code, out = audit_erased("u1", as_json=True)
    result = json.loads(out)
    assert (code, result["left"], list(result["since"].values())) == (0, {}, [1])


async def test_pseudonyms(config: Config, await_until: Await, tmp_path: Path) -> None:
    """The caller's id is given; telemetry has the pseudonym."""
    key_file = tmp_path / "key"
    key_file.write_bytes(secrets.token_bytes(32))
    key_file.chmod(0o600)
    keyed = replace(config, pseudonym_key_file=key_file)
    pseudonym = keyed.pseudonymiser().pseudonym("u1")
    await through(keyed, await_until, feedback(user_id=pseudonym), feedback(user_id="other", event_id="event-2"))
    assert not search(config, "u1").left
    assert sum(search(keyed, "u1").left.values()) == 1
    await through(keyed, await_until, erase(pseudonym))
    found = search(keyed, "u1")
    assert (found.ok, len(found.receipts)) == (True, 1)


def test_what_cannot_be_searched_is_no_proof(config: Config, audit_erased: Callable[..., tuple[int, str]]) -> None:
    """A damaged file may hold anything."""
    commit(config.archive_dir, addition([(1, feedback(user_id="u2"))]))
    (path,) = config.archive_dir.glob("date=*/*")
    path.write_bytes(b"x")
    code, out = audit_erased("u1")
    assert code == 1
    assert out.endswith("but not every place could be searched.\n")


async def test_generated_lists_are_searched(
    config: Config, audit_erased: Callable[..., tuple[int, str]], await_until: Await
) -> None:
    """Complete folders, wherever they are below the place of the installation, and what a killed generation left."""
    old = generated_lists(config.generated_dir / "nightly/old", ["u1", "u10"], "2026-11-21T11:00:00.000Z")
    new = generated_lists(config.generated_dir / "new", ["u1", "u10"], "2026-11-21T13:00:00.000Z")
    begun = generated_lists(config.generated_dir / "begun", ["u1", "u10"], "2026-11-21T11:00:00.000Z")
    (begun / "manifest.json").unlink()
    OutputFolder(begun).begin({"inputs": {"model": "m"}, "as_of_ms": unix_ms("2026-11-21T11:00:00.000Z")})
    shutil.copyfile(begun / "shard-00000.parquet", begun / ".shard-00000.parquet.0a1b2c3d.tmp")
    freeze(config, begun / ".frozen")
    record = encode(feedback(user_id="u1", received_at="2026-11-21T11:30:00.000Z"), "p", 1, 1)
    (begun / ".frozen" / "tail.jsonl").write_bytes(record)
    await through(config, await_until, erase("u1"))
    code, out = audit_erased("u1", as_json=True)
    result = json.loads(out)
    assert (code, result["unread"]) == (1, [])
    assert result["left"] == {"generated/nightly/old": 1, "generated/begun": 2, "generated/begun/.frozen": 1}
    assert result["since"] == {"generated/new": 1}
    shutil.rmtree(begun)
    erase_below(config.generated_dir, named({"u1"}, config.pseudonymiser()), Failpoints())
    assert audit_erased("u1")[0] == 0
    assert audit_erased("u10")[0] == 1
    (old / "shard-00000.parquet").write_bytes(b"x")
    (new / "manifest.json").write_text("{")
    result = json.loads(audit_erased("u1", as_json=True)[1])
    assert [sentence.partition(" cannot be read: ")[0] for sentence in result["unread"]] == [
        str(new / "manifest.json"),
        str(old / "shard-00000.parquet"),
    ]


def test_a_generation_may_go_on_meanwhile(
    config: Config, audit_erased: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is renamed is found; one that is half written is named as what it is; what is gone holds nobody."""
    folder = generated_lists(config.generated_dir / "lists", ["u1"], "2026-11-21T11:00:00.000Z")
    (folder / "manifest.json").unlink()
    OutputFolder(folder).begin({"inputs": {"model": "m"}, "as_of_ms": unix_ms("2026-11-21T11:00:00.000Z")})
    shard, staged = folder / "shard-00000.parquet", folder / ".shard-00000.parquet.0a1b2c3d.tmp"
    half, gone = (folder / f".shard-0000{number}.parquet.0a1b2c3d.tmp" for number in (1, 2))
    shard.rename(staged)
    half.write_bytes(b"PAR1")
    gone.touch()

    def read(path: Path) -> list[str]:
        if path == staged:
            staged.rename(shard)
        if path == gone:
            gone.unlink()
        return users_named(path)

    monkeypatch.setattr("service.generation.erasure.shard_erasure.users_named", read)
    with OutputFolder.held(folder):
        result = json.loads(audit_erased("u1", as_json=True)[1])
    assert result["left"] == {"generated/lists": 1}
    assert result["unread"] == [f"{folder} is being generated: search again when it is complete."]
    result = json.loads(audit_erased("u1", as_json=True)[1])
    assert result["unread"] == [f"{half} cannot be read: ArrowInvalid."]


def test_the_former_option_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """`--forgotten` was renamed: one word for one thing."""
    assert run(application(["audit"]), ["audit", "--forgotten", "42"]) == 2
    assert "No such option" in capsys.readouterr().err
