"""`recollect generate` writes the lists that a replica would answer, and goes on after it was killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from service.config import Config
from service.generation.erasure.chosen_users import named
from service.generation.erasure.folder_erasure import erase_below
from service.generation.files.output_folder import OutputFolder
from service.models.files import active_model, artefact
from service.models.files.erased_users import list_erased
from service.models.publication.user_erasure import ModelUserEraser
from service.training import pipeline
from telemetry.failpoints import Failpoints
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser
from tests.support.archives.stored_state import with_state
from tests.support.live.live_site import NOW_MS

Recollect = Callable[..., tuple[int, str, str]]
DATA = "demo:60x40x900"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Homes with an active model each: one with neighbours, one with factors that folds users in."""
    homes = {}
    for name in ("ease", "pure_svd"):
        homes[name] = tmp_path_factory.mktemp(name)
        pipeline.train(Config(home=homes[name]), data=DATA, algorithm=name, activate=True)
    return homes


def generated(told: tuple[int, str, str]) -> Any:
    code, out, err = told
    assert code == 0, err
    return json.loads(out)


def rows_of(path: Path | str) -> list[dict[str, Any]]:
    return [row for file in sorted(Path(path).glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def lists_of(path: Path | str) -> dict[str, list[tuple[str, float, str]]]:
    """Return the lists by user, and check that they are together and in order."""
    found: dict[str, list[tuple[str, float, str]]] = {}
    last = None
    for row in rows_of(path):
        assert row["user_id"] == last or row["user_id"] not in found
        last = row["user_id"]
        items = found.setdefault(last, [])
        items.append((row["item_id"], row["score"], row["source"]))
        assert row["rank"] == len(items)
    return found


def answered(recollect: Recollect, home: Path, user_id: str, *options: str) -> list[tuple[str, float, str]]:
    _, out, _ = recollect(home, "recommend", user_id, "-n", "12", "--json", *options)
    return [(item["item_id"], item["score"], item["source"]) for item in json.loads(out)["items"]]


@pytest.mark.parametrize("name", ["ease", "pure_svd"])
@pytest.mark.parametrize("after_snapshot", [False, True])
def test_live_lists_are_those_of_recommend(
    trained: dict[str, Path], recollect: Recollect, tmp_path: Path, name: str, *, after_snapshot: bool
) -> None:
    """Of every user of the model and of the archive, with a filter, and without hidden items."""
    home = with_state(trained[name], tmp_path, after_snapshot=after_snapshot)
    options = ("--filter", "year >= 1990") if after_snapshot else ()
    manifest = generated(recollect(home, "generate", "--n", "12", "--live", "--shard-users", "25", "--json", *options))
    found = lists_of(manifest["path"])
    assert set(found) == {*(str(user) for user in range(1, 61)), "visitor"}
    assert (manifest["users"], manifest["users_unknown"], len(manifest["shards"])) == (61, 1, 3)
    assert manifest["state_marks"] == {"a": "1-5" if after_snapshot else "1-4"}
    for user_id in ("1", "2", "17", "60", "visitor"):
        assert found[user_id] == answered(recollect, home, user_id, *options)
    assert "3" not in {item for items in found.values() for item, _, _ in items}
    assert sorted(path.name for path in Path(manifest["path"]).iterdir())[:2] == [".lock", "manifest.json"]


def test_without_live_users_are_as_trained(trained: dict[str, Path], recollect: Recollect, tmp_path: Path) -> None:
    """But items are as they are now: a hidden one is in no list."""
    home = with_state(trained["pure_svd"], tmp_path)
    found = lists_of(generated(recollect(home, "generate", "--n", "12", "--json"))["path"])
    plain = lists_of(generated(recollect(trained["pure_svd"], "generate", "--n", "12", "--json"))["path"])
    assert set(found) == {str(user) for user in range(1, 61)}
    assert any("3" in {item for item, _, _ in items} for items in plain.values())
    assert not any("3" in {item for item, _, _ in items} for items in found.values())
    for user_id in ("2", "40"):
        assert plain[user_id] == answered(recollect, trained["pure_svd"], user_id)


def test_users_of_a_file(trained: dict[str, Path], recollect: Recollect, tmp_path: Path) -> None:
    """In its order; those whom the model does not know get the popular items; one row for each user with `lists`."""
    users, output = tmp_path / "users.txt", tmp_path / "lists"
    users.write_text("7\nstranger\n3\n7\n")
    options = ("--users", str(users), "--n", "3", "--layout", "lists", "--output", str(output))
    code, out, err = recollect(trained["ease"], "generate", *options)
    assert (code, err) == (0, "generate: 0 %\ngenerate: 100 %\n")
    assert out.startswith("3 users have 9 items by ease-")
    assert "1 users are unknown to the model." in out
    rows = rows_of(output)
    assert [row["user_id"] for row in rows] == ["7", "stranger", "3"]
    assert {item["source"] for item in rows[1]["items"]} == {"popular"}
    code, out, _ = recollect(trained["ease"], "generate", *options)
    assert code == 0
    assert "there is nothing to do" in out
    code, out, _ = recollect(trained["ease"], "generate", "verify", str(output))
    assert (code, out) == (0, f"{output} is whole: 1 files with 3 users and 9 items; no user is twice or missing.\n")
    users.write_text("7\n")
    code, _, err = recollect(trained["ease"], "generate", *options)
    assert code == 2
    assert f"{output} holds another generation: its users is " in err


def test_a_killed_command_goes_on_as_it_began(
    trained: dict[str, Path], recollect: Recollect, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """With the state and the model of its beginning, though another model is active and more was archived since."""
    home = with_state(trained["pure_svd"], tmp_path)
    options = ("--n", "12", "--live", "--shard-users", "2", "--workers", "1")
    whole = generated(recollect(home, "generate", *options, "--output", str(tmp_path / "whole"), "--json"))
    path = tmp_path / "killed"
    environ = {**os.environ, "RECOLLECT_HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-m", "ops", "generate", *options, "--output", str(path)],
        env=environ,
        cwd=Path(__file__).parents[3],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until((path / "shard-00001.parquet").exists, timeout_s=60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_left = len(list(path.glob("*.parquet")))
    # What has been archived and activated since does not count: the state was copied.
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)
    (home / "state" / "snapshot.json").write_text("{")
    found = generated(recollect(home, "generate", *options, "--output", str(path), "--json"))
    assert found["outcome"] == ("continued" if n_left < 31 else "complete")
    assert found["shards"] == whole["shards"]
    assert lists_of(path) == lists_of(tmp_path / "whole")


def test_without_a_folder_the_last_one_of_the_same_model_is_continued(
    recollect: Recollect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another request, and the lists of another model, are begun in folders of their own."""
    home = tmp_path / "home"
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)
    with monkeypatch.context() as patch:
        patch.setattr("service.generation.files.output_folder.OutputFolder.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recollect(home, "generate", "--n", "2")
    (begun,) = (home / "generated").iterdir()
    assert generated(recollect(home, "generate", "--n", "3", "--json"))["outcome"] == "new"
    first = active_model.version(home / "models")
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)
    assert generated(recollect(home, "generate", "--n", "2", "--json"))["outcome"] == "new"
    code, out, err = recollect(home, "generate", "--n", "2", "--model", str(first), "--json")
    assert (code, json.loads(out)["path"], json.loads(out)["outcome"]) == (0, str(begun), "continued")
    assert err.startswith(f"Going on with {begun}, of ")


def test_pseudonyms_in_the_archive_are_users_of_the_model(
    trained: dict[str, Path], recollect: Recollect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model holds the ids of callers, the live state their pseudonyms; unknown users have nothing else."""
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    monkeypatch.setenv("RECOLLECT_PSEUDONYM_KEY_FILE", str(key))
    names = Pseudonymiser(b"k" * 32)
    users = {"1": names.pseudonym("1"), "visitor": names.pseudonym("visitor")}
    home = with_state(trained["pure_svd"], tmp_path, users=users)
    found = lists_of(generated(recollect(home, "generate", "--n", "12", "--live", "--json"))["path"])
    assert set(found) == {*(str(user) for user in range(1, 61)), users["visitor"]}
    for user_id in ("1", "2", "visitor"):
        name = users["visitor"] if user_id == "visitor" else user_id
        assert found[name] == answered(recollect, home, user_id)
    assert "7" not in {item for item, _, _ in found["1"]}


def test_erased_users_get_no_list(trained: dict[str, Path], recollect: Recollect, tmp_path: Path) -> None:
    """Neither from the model, which is published anew, nor by name."""
    home = tmp_path / "home"
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)
    ModelUserEraser(home / "models", Pseudonymiser()).erase_now({"5"})
    users = tmp_path / "users.txt"
    users.write_text("4\n5\n6\n")
    manifest = generated(recollect(home, "generate", "--n", "2", "--json"))
    assert "5" not in lists_of(manifest["path"])
    manifest = generated(recollect(home, "generate", "--n", "2", "--users", str(users), "--json"))
    assert list(lists_of(manifest["path"])) == ["4", "6"]
    assert (manifest["users"], manifest["users_erased"]) == (2, 1)


def before_completing(monkeypatch: pytest.MonkeyPatch, call: Callable[[int], None]) -> list[Path]:
    """Have something called after the last shard and before each look at the list of erased users, with its number.

    Returns:
        The folder, as often as its end was tried.
    """
    completing = OutputFolder.completing
    tried: list[Path] = []

    def call_first(folder: OutputFolder) -> Any:
        assert len(tried) < 5, "the end is tried again and again"
        call(len(tried))
        tried.append(folder.path)
        return completing(folder)

    monkeypatch.setattr(OutputFolder, "completing", call_first)
    return tried


def test_a_user_who_is_erased_at_the_very_end_gets_no_list(
    recollect: Recollect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last shard: the search for complete folders has passed this one over. Others delay nothing."""
    home = tmp_path / "home"
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)

    def erase(nth: int) -> None:
        ModelUserEraser(home / "models", Pseudonymiser()).erase_now({f"unknown-{nth}"} if nth else {"5"})
        assert erase_below(home / "generated", named({"5"}, Pseudonymiser()), Failpoints()).unfinished == 1

    tried = before_completing(monkeypatch, erase)
    manifest = generated(recollect(home, "generate", "--n", "2", "--json"))
    assert tried == [Path(manifest["path"])] * 2
    assert "5" not in lists_of(manifest["path"])
    assert (manifest["users"], manifest["users_erased"]) == (59, 1)
    assert recollect(home, "generate", "verify", manifest["path"])[0] == 0


@pytest.mark.parametrize(("after_ms", "has_list"), [(2, False), (1, True)])
def test_live_events_from_before_an_erase_keep_no_list(
    recollect: Recollect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_ms: int, *, has_list: bool
) -> None:
    """The copied state still has them; a user who did something after the request came back.

    Also before the listing; but not into a list by a model from before it, as that of user 1.
    """
    pipeline.train(Config(home=tmp_path / "home"), data=DATA, algorithm="popularity", activate=True)
    home = with_state(tmp_path / "home", tmp_path)
    requested = {"visitor": rfc3339_ms((NOW_MS + after_ms) / 1000), "1": rfc3339_ms(NOW_MS / 1000)}

    def erase(_nth: int) -> None:
        list_erased(home / "models", requested)

    before_completing(monkeypatch, erase)
    manifest = generated(recollect(home, "generate", "--n", "2", "--live", "--json"))
    lists = lists_of(manifest["path"])
    assert ("1" in lists, "visitor" in lists) == (False, has_list)
    assert manifest["users_erased"] == (1 if has_list else 2)


def test_erased_users_leave_complete_folders(recollect: Recollect, tmp_path: Path) -> None:
    """Those of the list of erased users, in the default place or elsewhere; a user by name, whenever."""
    home, output = tmp_path / "home", tmp_path / "lists"
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)
    inside = generated(recollect(home, "generate", "--n", "2", "--json"))["path"]
    generated(recollect(home, "generate", "--n", "2", "--output", str(output), "--layout", "lists", "--json"))
    ModelUserEraser(home / "models", Pseudonymiser()).erase_now({"5", "7"})
    code, out, _ = recollect(home, "generate", "erase")
    assert (code, out) == (0, "2 lists were removed from 1 files; 1 complete folders were searched.\n")
    assert set(lists_of(inside)) == {str(user) for user in range(1, 61)} - {"5", "7"}
    assert len(rows_of(output)) == 60
    code, out, _ = recollect(home, "generate", "erase", str(output), inside, "--json")
    assert (code, json.loads(out)) == (0, {"folders": 2, "unfinished": 0, "files": 1, "lists": 2})
    code, out, _ = recollect(home, "generate", "erase", str(tmp_path), "--user", "9", "--user", "nobody", "--json")
    assert (code, json.loads(out)["lists"]) == (0, 2)
    assert {row["user_id"] for row in rows_of(output)} == {str(user) for user in range(1, 61)} - {"5", "7", "9"}
    assert recollect(home, "generate", "verify", str(output))[0] == 0


def test_erase_of_a_user_says_where_the_user_may_still_be(
    recollect: Recollect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation that goes on makes the user's list, unless the user is on the list of erased users."""
    home = tmp_path / "home"
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recollect(home, "generate", "--n", "2")
    code, out, _ = recollect(home, "generate", "erase")
    assert code == 0
    assert "1 folders are not complete: their generation leaves erased users out at its end.\n" in out
    code, out, _ = recollect(home, "generate", "erase", "--user", "5")
    assert code == 1
    assert "1 folders are not complete and may hold them: complete or remove these, then erase.\n" in out
    code, out, _ = recollect(home, "generate", "erase", "--user", "5", "--json")
    assert (code, json.loads(out)["unfinished"]) == (1, 1)


def test_a_user_who_came_back_after_an_erase_has_a_list(recollect: Recollect, tmp_path: Path) -> None:
    """The model was trained on what the user did since; the list of erased users is kept for good."""
    home, data = tmp_path / "home", tmp_path / "ratings.csv"
    rows = [
        f"u{user},i{item},{1 + (user * item) % 5},{4_000_000_000 + item}"
        for user in range(9)
        for item in range(user, 12)
    ]
    data.write_text("\n".join(["user,item,rating,timestamp", *rows]) + "\n")
    pipeline.train(Config(home=home), data=str(data), algorithm="popularity", activate=True)
    ModelUserEraser(home / "models", Pseudonymiser()).erase_now({"u5"})
    pipeline.train(Config(home=home), data=str(data), algorithm="popularity", activate=True)
    manifest = generated(recollect(home, "generate", "--n", "2", "--json"))
    assert "u5" in lists_of(manifest["path"])
    assert manifest["users_erased"] == 0


def test_a_generation_of_a_model_that_is_gone_begins_anew(
    trained: dict[str, Path], recollect: Recollect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an erasure, which publishes the model again without the user."""
    home, output = tmp_path / "home", tmp_path / "lists"
    pipeline.train(Config(home=home), data=DATA, algorithm="popularity", activate=True)
    with monkeypatch.context() as patch:
        patch.setattr("service.generation.files.output_folder.OutputFolder.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recollect(home, "generate", "--n", "2", "--output", str(output))
    before = active_model.version(home / "models")
    ModelUserEraser(home / "models", Pseudonymiser()).erase_now({"5"})
    code, out, err = recollect(home, "generate", "--n", "2", "--output", str(output), "--json")
    manifest = json.loads(out)
    assert code == 0
    assert f"The model {before} is gone: {output} is begun anew." in err
    assert artefact.read_manifest(home / "models" / manifest["inputs"]["model"])["derived"]["from"] == before
    assert "5" not in lists_of(output)


@pytest.mark.parametrize(
    ("argv", "status", "sentence"),
    [
        (("--filter", "year = 3"), 2, "--filter: has '=' where '==' is needed"),
        (("--filter", "genres > 3"), 2, "--filter: "),
        (("--layout", "columns"), 2, "--layout is 'columns'; give rows or lists."),
        (("--model", "svd-none"), 1, "There is no model 'svd-none' in "),
        (("--users", "no-such-file"), 2, "no-such-file cannot be read: No such file or directory."),
        (("--live",), 1, "There is no live state in "),
        (("verify", "no-such-folder"), 1, "no-such-folder has no manifest.json"),
        (("erase", "no-such-folder"), 2, "no-such-folder holds no generated lists."),
    ],
)
def test_what_cannot_be_generated(
    trained: dict[str, Path], recollect: Recollect, argv: tuple[str, ...], status: int, sentence: str
) -> None:
    """One sentence says why, and nothing is left behind."""
    before = sorted(trained["ease"].glob("generated/*"))
    code, out, err = recollect(trained["ease"], "generate", *argv)
    assert (code, out) == (status, "")
    assert sentence in err
    assert sorted(trained["ease"].glob("generated/*")) == before
