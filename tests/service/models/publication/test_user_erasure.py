"""An erased user is in no published model, whatever is killed on the way and whatever is being trained meanwhile."""

import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.config import Config
from service.errors import DataError, ModelRefused, RunError
from service.models.files import active_model, artefact, versions
from service.models.files.erased_users import list_erased, without_users
from service.models.publication import publication
from service.models.publication.publication import activate
from service.models.publication.user_erasure import ModelUserEraser
from service.models.ranking import scoring
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.training import pipeline
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser

Make = Callable[..., ModelSnapshot]
KEY = b"k" * 32
PLAIN = Pseudonymiser()
NO_MEASURES = {"rmse": 0.9}
NOW_S = 1_700_000_000


def publish(models_dir: Path, snapshot: ModelSnapshot) -> str:
    return publication.publish(models_dir, snapshot, data={"fingerprint": "sha256:0"}, measures=NO_MEASURES)


def everything(models_dir: Path) -> bytes:
    return b"".join(path.read_bytes() for path in models_dir.rglob("*") if path.is_file())


def users(models_dir: Path) -> dict[str, list[str]]:
    return {name: artefact.load(models_dir / name).users.id_of for name in versions.published(models_dir)}


def test_a_model_without_some_users_answers_all_others_as_before(make_snapshot: Make) -> None:
    """Row for row: ids, factors, biases, histories, lists."""
    whole = make_snapshot()
    left = without_users(whole, [0, 3, 6])
    assert left.users.id_of == ["u1", "u2", "u4", "u5"]
    np.testing.assert_array_equal(left.popularity, whole.popularity)
    for user in left.users.id_of:
        before, after = whole.users.row_of[user], left.users.row_of[user]
        np.testing.assert_array_equal(left.seen_rows(after), whole.seen_rows(before))
        (expected,) = scoring.personal(whole, [scoring.TopNRequest(before, 20)])
        (got,) = scoring.personal(left, [scoring.TopNRequest(after, 20)])
        assert (got.rows.tolist(), got.scores.tolist()) == (expected.rows.tolist(), expected.scores.tolist())


async def test_checkpoints_of_a_killed_training_go_with_any_user(tmp_path: Path) -> None:
    """They hold rows of users, and do not say of which; torn ones as well."""
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    for name in ("a.checkpoint", "b.checkpoint", ".b.checkpoint.0a1b2c3d.tmp"):
        (checkpoints / name).write_bytes(b"rows")
    await ModelUserEraser(tmp_path / "models", PLAIN, None, checkpoints).erase(["u5"])
    assert list(checkpoints.iterdir()) == []


async def test_every_version_is_published_anew_without_the_user(tmp_path: Path, make_snapshot: Make) -> None:
    """The active one stays active under its copy's name; versions that never held the user stay as they are."""
    old, active = (publish(tmp_path, make_snapshot(seed=seed)) for seed in (1, 2))
    without = publish(tmp_path, make_snapshot(n_users=2))
    activate(tmp_path, active)
    before = {name: artefact.read_manifest(tmp_path / name) for name in (old, active)}
    assert await ModelUserEraser(tmp_path, PLAIN).erase(["u5"]) == {"u5": 2}
    after = users(tmp_path)
    assert len(after) == 3
    assert without in after
    assert not {old, active} & set(after)
    assert after.pop(without) == ["u0", "u1"]
    assert list(after.values()) == [["u0", "u1", "u2", "u3", "u4", "u6"]] * 2
    now_active = active_model.version(tmp_path)
    assert now_active is not None
    manifest = artefact.read_manifest(tmp_path / now_active)
    derived = manifest.pop("derived")
    assert (derived["from"], derived["first"], derived["why"]) == (active, active, "users were erased")
    kept = ("algorithm", "settings", "measures", "data", "created", "code_version", "data_as_of", "n_items")
    assert {name: manifest[name] for name in kept} == {name: before[active][name] for name in kept}
    assert manifest["n_users"] == 6
    assert json.loads((tmp_path / "popular.json").read_bytes())["model"] == now_active
    # The copies stand where their origins stood, and are as private as they were.
    assert [name.split("-")[1] for name in versions.published(tmp_path)] == sorted(
        name.split("-")[1] for name in (old, active, without)
    )
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in versions.published(tmp_path)} == {0o700}
    assert {"forgotten.json", "ACTIVE"} < set(os.listdir(tmp_path))  # noqa: PTH208 (a name is all that is asked)


async def test_erasing_again_changes_nothing_and_another_user_continues_from_there(
    tmp_path: Path, make_snapshot: Make
) -> None:
    """A copy of a copy names the training that it comes from."""
    version = publish(tmp_path, make_snapshot())
    eraser = ModelUserEraser(tmp_path, PLAIN)
    assert [await eraser.erase([user]) for user in ("u5", "u5", "nobody", "u6")] == [{"u5": 1}, {}, {}, {"u6": 1}]
    ((name, left),) = users(tmp_path).items()
    assert left == ["u0", "u1", "u2", "u3", "u4"]
    derived = artefact.read_manifest(tmp_path / name)["derived"]
    assert (derived["first"], derived["from"] != version) == (version, True)
    assert active_model.version(tmp_path) is None


async def test_the_last_user_can_be_erased(tmp_path: Path, make_snapshot: Make) -> None:
    """What is left is a model of items."""
    activate(tmp_path, publish(tmp_path, make_snapshot(n_users=1)))
    assert await ModelUserEraser(tmp_path, PLAIN).erase(["u0"]) == {"u0": 1}
    assert list(users(tmp_path).values()) == [[]]


async def test_a_user_is_found_by_their_pseudonym(tmp_path: Path, make_snapshot: Make) -> None:
    """Models have callers' ids, telemetry has pseudonyms; neither is written to the list of erased users."""
    publish(tmp_path, make_snapshot())
    pseudonyms = Pseudonymiser(KEY)
    name = pseudonyms.pseudonym("u5")
    assert await ModelUserEraser(tmp_path, pseudonyms).erase([name]) == {name: 1}
    assert list(users(tmp_path).values()) == [["u0", "u1", "u2", "u3", "u4", "u6"]]
    written = everything(tmp_path)
    assert name.encode() not in written
    assert b"u5" not in written


async def test_a_user_is_erased_from_a_model_of_pseudonyms(tmp_path: Path) -> None:
    """A model trained on archived events has pseudonyms: found in published versions, and left out later."""
    pseudonyms = Pseudonymiser(KEY)
    ids = [pseudonyms.pseudonym(name) for name in ("ada", "bob", "eve")]
    path = tmp_path / "events.csv"
    path.write_text("user,item\n" + "".join(f"{id_},{item}\n" for id_ in ids for item in "abc"))
    key_file = tmp_path / "key"
    key_file.touch(0o600)
    key_file.write_bytes(KEY)
    config = Config(home=tmp_path / "var", pseudonym_key_file=key_file)
    pipeline.train(config, data=str(path), algorithm="popularity")
    eraser = ModelUserEraser(config.models_dir, pseudonyms, config.security_dir)
    assert await eraser.erase([ids[1]]) == {ids[1]: 1}
    assert list(users(config.models_dir).values()) == [[ids[0], ids[2]]]
    (entered,) = config.security_dir.glob("log-*.jsonl")
    entries = [json.loads(line) for line in entered.read_text().splitlines()]
    assert [(entry["what"], entry["by"]) for entry in entries] == [("activate", "training"), ("activate", "consumer")]
    assert entries[-1]["model"] == active_model.version(config.models_dir)
    assert ids[1] not in entered.read_text()
    pipeline.train(config, data=str(path), algorithm="popularity")
    assert list(users(config.models_dir).values()) == [[ids[0], ids[2]]] * 2


async def test_no_file_has_the_id_afterwards(tmp_path: Path, make_snapshot: Make) -> None:
    """The bytes of the directory are searched, links to deleted files aside."""
    snapshot = make_snapshot()
    canary = "canary-7f3a@example.org"
    named = ModelSnapshot(**{**snapshot.__dict__, "users": Vocabulary([*snapshot.users.id_of[:-1], canary])})
    activate(tmp_path, publish(tmp_path, named))
    assert canary.encode() in everything(tmp_path)
    await ModelUserEraser(tmp_path, PLAIN).erase([canary])
    assert canary.encode() not in everything(tmp_path)


async def test_a_replica_keeps_what_it_mapped(tmp_path: Path, make_snapshot: Make) -> None:
    """Removing a version does not affect a process that serves it."""
    version = publish(tmp_path, make_snapshot())
    held = artefact.load(tmp_path / version)
    expected = held.item_factors.copy()
    await ModelUserEraser(tmp_path, PLAIN).erase(["u1"])
    np.testing.assert_array_equal(held.item_factors, expected)


async def test_a_damaged_version_is_named_and_the_others_are_done(tmp_path: Path, make_snapshot: Make) -> None:
    """It is not deleted, and the erasure is not done until it is removed."""
    damaged, sound = (publish(tmp_path, make_snapshot(seed=seed)) for seed in (1, 2))
    (tmp_path / damaged / "item_bias.bin").write_bytes(b"")
    eraser = ModelUserEraser(tmp_path, PLAIN)
    with pytest.raises(RunError, match=rf"must be removed: {damaged}: item_bias has 0 bytes"):
        await eraser.erase(["u1"])
    assert (tmp_path / damaged).is_dir()
    assert not (tmp_path / sound).exists()
    for path in (tmp_path / damaged).iterdir():
        path.unlink()
    (tmp_path / damaged).rmdir()
    assert await eraser.erase(["u1"]) == {}


async def test_an_unreadable_list_is_never_taken_for_an_empty_one(tmp_path: Path, make_snapshot: Make) -> None:
    """Neither by an erase nor by a training."""
    await ModelUserEraser(tmp_path / "models", PLAIN).erase(["u1"])
    path = tmp_path / "models/forgotten.json"
    for content in (
        "{",
        "[]",
        '{"format": 3, "salt": "", "users": {}, "passing": {}}',
        '{"format": 2, "salt": "", "users": {}}',
        '{"format": 1, "salt": "", "users": {"a": 1}}',
    ):
        path.write_text(content)
        with pytest.raises(ModelRefused, match=r"forgotten\.json"):
            await ModelUserEraser(tmp_path / "models", PLAIN).erase(["u2"])
        with pytest.raises(ModelRefused, match=r"forgotten\.json"):
            pipeline.train(Config(home=tmp_path), data="demo:20x20x100", algorithm="svd")
        assert path.read_text() == content


def kill_at_change(number: int, eraser: ModelUserEraser, user_id: str) -> int:
    """Erase a user in a process of its own that dies at its n-th change of the file system; return its status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writing or event in {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        eraser.erase_now([user_id])
    except BaseException:  # noqa: BLE001 (a forked child must not return into pytest)
        os._exit(1)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of later Pythons: the child only computes
def test_killed_at_any_change_it_leaves_whole_models_and_continues(
    tmp_path: Path, make_snapshot: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename, removal and new file is a place to die; another user's erase in between changes nothing."""
    # What a killed process has written is in the page cache, and thousands of waits for the disk show nothing more.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    number, status = 0, signal.SIGKILL.value
    while status:
        number += 1
        models_dir = tmp_path / str(number)
        activate(models_dir, publish(models_dir, make_snapshot(seed=1)))
        publish(models_dir, make_snapshot(seed=2))
        eraser = ModelUserEraser(models_dir, PLAIN)
        status = kill_at_change(number, eraser, "u5")
        assert status in {0, signal.SIGKILL.value}
        active = active_model.version(models_dir)
        assert active is not None
        assert "u4" in artefact.load(models_dir / active).users.row_of
        assert active in users(models_dir)
        for user in ("u4", "u5"):
            eraser.erase_now([user])
        assert list(users(models_dir).values()) == [["u0", "u1", "u2", "u3", "u6"]] * 2
        active = active_model.version(models_dir)
        assert json.loads((models_dir / "popular.json").read_bytes())["model"] == active
        assert active in users(models_dir)
        assert not list(models_dir.glob(".*.tmp"))
    assert number > 30


RATINGS = "user,item,rating,timestamp\n" + "".join(
    f"{user},{item},{1 + (user_number + item_number) % 5},{1_700_000_000 + user_number}\n"
    for user_number, user in enumerate(["ann", "bob", "eve"])
    for item_number, item in enumerate("abcdefgh")
)


async def test_training_on_the_same_data_does_not_bring_a_user_back(tmp_path: Path) -> None:
    """The files are the operator's and still hold them, attributes too; a note says that they were left out."""
    config = Config(home=tmp_path / "var")
    data = tmp_path / "ratings.csv"
    data.write_text(RATINGS)
    data.with_name("users.csv").write_text("user_id,age\nann,30\nbob,40\n")
    pipeline.train(config, data=str(data), algorithm="svd")
    await ModelUserEraser(config.models_dir, PLAIN).erase(["bob"])
    read: list[Any] = []
    manifest = pipeline.train(config, data=str(data), algorithm="svd", on_read=read.append)
    assert {tuple(ids) for ids in users(config.models_dir).values()} == {("ann", "eve")}
    assert (manifest["data"]["n_users"], manifest["data"]["n_ratings"]) == (2, 16)
    assert read[0].report.notes[1:] == ("8 ratings of 1 erased users were left out.",)
    assert read[0].user_catalogue.attributes == {"ann": {"age": 30}}
    # What the user does after that is another matter.
    data.write_text(f"{RATINGS}bob,c,5,{2**31}\n")
    version = pipeline.train(config, data=str(data), algorithm="svd")["version"]
    snapshot = artefact.load(config.models_dir / version)
    assert snapshot.users.id_of == ["ann", "bob", "eve"]
    assert read[0].user_catalogue.attributes == {"ann": {"age": 30}}
    assert [snapshot.items.id_of[row] for row in snapshot.seen_rows(1)] == ["c"]
    data.write_text("bob,a,1\nbob,b,2\n")
    with pytest.raises(DataError, match=r"ratings\.csv holds no interactions but those of erased users"):
        pipeline.train(config, data=str(data), algorithm="svd")


@pytest.mark.parametrize("key", [None, KEY])
def test_a_user_erased_during_a_training_is_not_published_by_it(tmp_path: Path, key: bytes | None) -> None:
    """The training read its data before; the version it publishes does not hold them."""
    key_file = None
    if key is not None:
        key_file = tmp_path / "key"
        key_file.touch(0o600)
        key_file.write_bytes(key)
    config = Config(home=tmp_path / "var", pseudonym_key_file=key_file)
    pseudonyms = config.pseudonymiser()
    data = tmp_path / "ratings.csv"
    data.write_text(RATINGS)
    done = False

    def erase_meanwhile(stage: str, *_: int) -> None:
        nonlocal done
        if stage == "fit" and not done:
            done = True
            eraser = ModelUserEraser(config.models_dir, pseudonyms)
            thread = threading.Thread(target=eraser.erase_now, args=[[pseudonyms.pseudonym("bob")]])
            thread.start()
            thread.join()

    pipeline.train(config, data=str(data), algorithm="svd", progress=erase_meanwhile)
    assert done
    assert list(users(config.models_dir).values()) == [["ann", "eve"]]


async def test_many_users_are_erased_with_one_copy_of_each_version(tmp_path: Path, make_snapshot: Make) -> None:
    """And ids that no version holds cost none, and do not stay on the list."""
    old, active = (publish(tmp_path, make_snapshot(seed=seed)) for seed in (1, 2))
    activate(tmp_path, active)
    eraser = ModelUserEraser(tmp_path, PLAIN)
    unknown = [f"unknown-{number}" for number in range(50)]
    assert await eraser.erase(unknown) == {}
    assert set(users(tmp_path)) == {old, active}
    assert await eraser.erase(["u1", "u3", "u5", *unknown]) == {"u1": 2, "u3": 2, "u5": 2}
    after = users(tmp_path)
    assert list(after.values()) == [["u0", "u2", "u4", "u6"]] * 2
    assert [artefact.read_manifest(tmp_path / name)["derived"]["from"] for name in after] == [
        artefact.read_manifest(tmp_path / name)["derived"]["first"] for name in after
    ]
    listed = json.loads((tmp_path / "forgotten.json").read_bytes())
    assert (len(listed["users"]), len(listed["passing"])) == (3, 50)


async def test_a_user_whom_a_trainings_data_holds_stays_on_the_list(tmp_path: Path) -> None:
    """No model holds the user, but the file does: a later training must leave the user out, too."""
    config = Config(home=tmp_path / "var")
    await ModelUserEraser(config.models_dir, PLAIN).erase(["bob", "nobody"])
    data = tmp_path / "ratings.csv"
    data.write_text(RATINGS)
    pipeline.train(config, data=str(data), algorithm="popularity")
    assert list(users(config.models_dir).values()) == [["ann", "eve"]]
    listed = json.loads((config.models_dir / "forgotten.json").read_bytes())
    assert (len(listed["users"]), len(listed["passing"])) == (1, 1)


async def test_a_user_who_came_back_stays_in_later_models(tmp_path: Path) -> None:
    """While a damaged version keeps the erase open; what the user did between request and listing is learnt, too."""
    config = Config(home=tmp_path / "var")
    data = tmp_path / "ratings.csv"
    data.write_text(RATINGS)
    old = config.models_dir / pipeline.train(config, data=str(data), algorithm="popularity")["version"]
    manifest = json.loads((old / "manifest.json").read_bytes())
    (old / "manifest.json").write_text(json.dumps(manifest | {"created": rfc3339_ms(NOW_S)}))
    (old / "popularity.bin").write_bytes(b"")
    now_s = int(time.time())
    requested = {"bob": rfc3339_ms(now_s - 3600)}
    list_erased(config.models_dir, requested, now_s - 1800)
    data.write_text(f"{RATINGS}bob,c,5,{now_s - 1900}\n")
    version = pipeline.train(config, data=str(data), algorithm="popularity")["version"]
    eraser = ModelUserEraser(config.models_dir, PLAIN)
    for _ in range(2):
        with pytest.raises(RunError, match=rf"must be removed: {old.name}"):
            await eraser.erase(requested)
    snapshot = artefact.load(config.models_dir / version)
    assert [snapshot.items.id_of[row] for row in snapshot.seen_rows(snapshot.users.row_of["bob"])] == ["c"]
    # Another request counts for it.
    with pytest.raises(RunError, match=rf"must be removed: {old.name}"):
        await eraser.erase(["bob"])
    (copy,) = set(versions.published(config.models_dir)) - {old.name}
    assert copy != version
    assert "bob" not in artefact.load_users(config.models_dir / copy).row_of
