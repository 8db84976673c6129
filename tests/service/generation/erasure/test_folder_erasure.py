"""Erased users leave complete folders of lists, whatever is killed; all other lists stay as they are."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.errors import RunError, UsageError
from service.generation import generation
from service.generation.erasure import folder_erasure, shard_erasure
from service.generation.erasure.chosen_users import Chosen, listed, named
from service.generation.erasure.folder_erasure import ErasedLists
from service.generation.files import shard_file
from service.generation.files.output_folder import FROZEN, MANIFEST, NEXT_MANIFEST, PROGRESS, OutputFolder
from service.generation.files.shard_format import LAYOUTS, Layout
from service.generation.files.verification import users_of, verify
from service.generation.shard_source import ShardSource
from service.models.files.erased_users import ErasedUsers
from telemetry.failpoints import FAILPOINTS, Failpoints
from telemetry.pseudonym import Pseudonymiser
from tests.support.models.generated_folders import AS_OF, AS_OF_S, ERASED, N_USERS, contents, copy_of, generate

PLAIN = Pseudonymiser()
STEPS = [name for name in FAILPOINTS if name.startswith("generated.")]
ROOT = Path(__file__).parents[4]


def manifest_of(path: Path) -> dict[str, Any]:
    """Return a manifest without what tells one folder from another one of the same lists."""
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest.pop("rewritten", None)
    return dict(sorted(manifest.items()))


def erase(path: Path, users: Collection[str], pseudonyms: Pseudonymiser = PLAIN) -> ErasedLists:
    return folder_erasure.erase_from(path, named(set(users), pseudonyms), Failpoints())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_that_of_a_generation_without_the_users(
    made: Callable[..., Path], tmp_path: Path, layout: Layout
) -> None:
    """Byte for byte, manifest included, with a user who has no item; files without the users are not touched."""
    folder = copy_of(made(layout), tmp_path / "lists")
    before = {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("*.parquet")}
    os.utime(folder, (AS_OF_S, AS_OF_S))
    assert [shard["users_without_items"] for shard in manifest_of(folder)["shards"]][1] == 1
    assert erase(folder, [*ERASED, "nobody"]) == ErasedLists(folders=1, files=3, lists=4)
    expected = made(layout, *ERASED)
    assert contents(folder) == contents(expected)
    assert manifest_of(folder) == manifest_of(expected)
    assert json.loads((folder / MANIFEST).read_bytes())["rewritten"]["why"] == "users were erased"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", MANIFEST, *sorted(before)]
    after = {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("*.parquet")}
    assert {name for name in before if after[name] != before[name]} == {f"shard-0000{n}.parquet" for n in (0, 1, 4)}
    assert verify(folder, lambda *_: None)["users"] == N_USERS - 4
    # Old folders are removed by their time.
    assert folder.stat().st_mtime == AS_OF_S
    # Not even a dictionary has their ids.
    assert not set(ERASED) & {user for file in folder.glob("*.parquet") for user in shard_erasure.users_named(file)}
    assert erase(folder, ERASED) == ErasedLists(folders=1)
    assert contents(folder) == contents(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_several_row_groups(
    source: ShardSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    """All users of a group may go; the lists of the others stay, in their order."""
    monkeypatch.setattr(shard_file, "_GROUP_ROWS", 15)
    folder = generate(tmp_path / "lists", source, layout)
    before = [row for file in sorted(folder.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
    erased = {"u0", "u1", "u2", "u11"}
    assert erase(folder, erased).lists == 4
    rows = [row for file in sorted(folder.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
    assert rows == [row for row in before if row["user_id"] not in erased]
    assert verify(folder, lambda *_: None)["users"] == N_USERS - 4


def test_the_last_user_of_a_file(source: ShardSource, tmp_path: Path) -> None:
    """An empty file stays, as of a generation without any user."""
    folder = generate(tmp_path / "lists", source, "rows")
    assert erase(folder, {f"u{row}" for row in range(40, 47)}).files == 1
    assert users_of(folder / "shard-00004.parquet") == []
    assert verify(folder, lambda *_: None)["users"] == 40


KILLED = """
import json, os, sys
from pathlib import Path
from service.generation.erasure.chosen_users import named
from service.generation.erasure.folder_erasure import erase_from
from telemetry.failpoints import Failpoints
from telemetry.pseudonym import Pseudonymiser
for failpoint, folder in json.loads(sys.argv[1]):
    pid = os.fork()
    if not pid:
        erase_from(Path(folder), named({"u3", "u13", "u14", "u46"}, Pseudonymiser()), Failpoints.parse(failpoint))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_killed_at_each_step_the_next_pass_completes_it(made: Callable[..., Path], tmp_path: Path) -> None:
    """Within the first file and the last one: what `verify` does not accept, it names."""
    kills = [(f"{name}:kill:{nth}", str(tmp_path / f"{name}-{nth}")) for name in STEPS for nth in (1, 3)]
    for _, path in kills:
        copy_of(made("rows"), Path(path))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(kills)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(kills)
    expected = made("rows", *ERASED)
    for failpoint, path in kills:
        folder = Path(path)
        is_between = failpoint.startswith(("generated.planned", "generated.renamed"))
        assert (folder / NEXT_MANIFEST).exists() == is_between
        if is_between:
            with pytest.raises(RunError, match=r"`recollect generate erase .*` completes it\."):
                verify(folder, lambda *_: None)
        else:
            verify(folder, lambda *_: None)
        # Each user is in one file at most, at every moment.
        users = [user for file in sorted(folder.glob("*.parquet")) for user in users_of(file)]
        assert len(users) == len(set(users))
        erase(folder, ERASED)
        assert contents(folder) == contents(expected)
        assert manifest_of(folder) == manifest_of(expected)
        assert sorted(file.name for file in folder.iterdir()) == [".lock", MANIFEST, *contents(expected)]


def test_a_killed_pass_is_completed_by_one_for_other_users(made: Callable[..., Path], tmp_path: Path) -> None:
    """The planned change is completed, also if the file holds none of the other users."""
    folder = copy_of(made("rows"), tmp_path / "lists")
    with pytest.raises(Exception, match=r"generated\.planned"):
        folder_erasure.erase_from(folder, named({"u3"}, PLAIN), Failpoints.parse("generated.planned:raise"))
    assert erase(folder, {"nobody"}).files == 0
    assert verify(folder, lambda *_: None)["users"] == N_USERS - 1
    assert "u3" not in users_of(folder / "shard-00000.parquet")


def test_users_of_lists_are_found_by_their_pseudonyms(made: Callable[..., Path], tmp_path: Path) -> None:
    """Lists have the ids of callers, requests have pseudonyms."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    folder = copy_of(made("rows"), tmp_path / "lists")
    assert erase(folder, {pseudonyms.pseudonym(user) for user in ERASED}, pseudonyms).lists == 4
    assert contents(folder) == contents(made("rows", *ERASED))


def chosen_at(erased_s: int) -> Chosen:
    return listed(ErasedUsers(b"s" * 32, {}).with_erased({"u3"}, erased_s), PLAIN)


def test_lists_made_after_an_erase_are_of_users_who_came_back(made: Callable[..., Path], tmp_path: Path) -> None:
    """The list of erased users counts for lists of an earlier time, to the second."""
    folder = copy_of(made("rows"), tmp_path / "lists")
    assert folder_erasure.erase_from(folder, chosen_at(AS_OF_S - 1), Failpoints()).lists == 0
    assert folder_erasure.erase_from(folder, chosen_at(AS_OF_S), Failpoints()).lists == 1


def test_a_damaged_file_is_named_and_the_others_are_done(made: Callable[..., Path], tmp_path: Path) -> None:
    """One that cannot be read, and one that is not the manifest's; a removed file is passed over."""
    folder = copy_of(made("rows"), tmp_path / "below" / "lists")
    (folder / "shard-00000.parquet").write_bytes(b"PAR1")
    parquet.write_table(parquet.read_table(folder / "shard-00001.parquet"), folder / "shard-00001.parquet")
    (folder / "shard-00002.parquet").unlink()
    other = copy_of(made("lists"), tmp_path / "other")
    with pytest.raises(RunError) as refused:
        folder_erasure.erase_below(tmp_path, named(set(ERASED), PLAIN), Failpoints())
    assert str(refused.value) == (
        f"These lists may hold an erased user and must be removed: {folder}/shard-00000.parquet cannot be read, "
        f"ArrowInvalid; {folder}/shard-00001.parquet is not the file of manifest.json."
    )
    assert users_of(folder / "shard-00004.parquet") == [f"u{row}" for row in range(40, 46)]
    assert contents(other) == contents(made("lists", *ERASED))


def test_what_one_folder_raises_does_not_keep_the_others(
    made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest without a layout, lists that cannot be read in full, a full disk, and a folder of another owner."""
    first, second, third, last = (copy_of(made("rows"), tmp_path / name) for name in "abcd")
    manifest = json.loads((first / MANIFEST).read_bytes())
    del manifest["inputs"]["layout"]
    (first / MANIFEST).write_text(json.dumps(manifest))
    raised = {
        second / "shard-00000.parquet": pa.ArrowNotImplementedError("u3 has an unknown encoding"),
        third / "shard-00000.parquet": OSError(errno.ENOSPC, "No space left on device"),
        third / "shard-00001.parquet": OSError("Couldn't deserialize the page of u13"),
    }

    def write(source: Path, *args: Any) -> Any:
        if source in raised:
            raise raised[source]
        return shard_erasure.write_without(source, *args)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("service.generation.erasure.folder_erasure.write_without", write)
    monkeypatch.setattr("os.utime", refuse)
    with pytest.raises(RunError) as refused:
        folder_erasure.erase_below(tmp_path, named(set(ERASED), PLAIN), Failpoints())
    assert str(refused.value) == (
        f"Users cannot be erased from {first}: KeyError. These lists may hold an erased user and must be removed: "
        f"{second}/shard-00000.parquet cannot be read, ArrowNotImplementedError. "
        f"{third}/shard-00000.parquet cannot be written again: No space left on device. "
        f"These lists may hold an erased user and must be removed: {third}/shard-00001.parquet cannot be read, OSError."
    )
    expected = contents(made("rows", *ERASED))
    for folder, left in ((second, {"shard-00000.parquet"}), (third, {"shard-00000.parquet", "shard-00001.parquet"})):
        assert {name for name, content in contents(folder).items() if content != expected[name]} == left
    assert contents(last) == expected


def test_a_failed_pass_keeps_the_time_of_the_folder(made: Callable[..., Path], tmp_path: Path) -> None:
    """Old folders are removed by it. One that is removed before it is held is not made again."""
    folder = copy_of(made("rows"), tmp_path / "lists")
    os.utime(folder, (AS_OF_S, AS_OF_S))
    with pytest.raises(Exception, match=r"generated\.planned"):
        folder_erasure.erase_from(folder, named({"u3"}, PLAIN), Failpoints.parse("generated.planned:raise"))
    assert folder.stat().st_mtime == AS_OF_S

    def remove(_: Any, __: str) -> set[str]:
        shutil.rmtree(folder, ignore_errors=True)
        return {"u3"}

    assert folder_erasure.erase_from(folder, remove, Failpoints()) == ErasedLists()
    assert not folder.exists()


def test_a_part_of_a_file_is_removed(
    made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk would stay full until the next attempt."""
    folder = copy_of(made("rows"), tmp_path / "lists")
    monkeypatch.setattr(shard_erasure, "write_group", lambda *_: _raise(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(RunError, match="cannot be written again: No space left"):
        erase(folder, {"u3"})
    assert sorted(path.name for path in folder.iterdir()) == [".lock", MANIFEST, *contents(folder)]


def _raise(error: Exception) -> None:
    raise error


def test_a_folder_that_is_begun_anew_is_its_generations(made: Callable[..., Path], tmp_path: Path) -> None:
    """Removed and begun between the search and the lock: what the new generation goes on with stays."""
    folder = copy_of(made("rows"), tmp_path / "lists")

    def begin_anew(_: Any, __: str) -> set[str]:
        if (folder / MANIFEST).exists():
            (folder / MANIFEST).unlink()
            (folder / FROZEN).mkdir()
            (folder / PROGRESS).write_text("{}\n")
        return {"u3"}

    assert folder_erasure.erase_from(folder, begin_anew, Failpoints()) == ErasedLists(unfinished=1)
    assert (folder / FROZEN).is_dir()
    assert (folder / PROGRESS).exists()


def test_a_folder_that_is_made_is_left_to_its_generation(source: ShardSource, tmp_path: Path) -> None:
    """Until it is complete; one that becomes complete at this moment is tried again."""
    path = tmp_path / "lists"
    with OutputFolder.held(path) as folder:
        folder.frozen.mkdir()
        folder.begin({"inputs": {"model": "m", "n": 5, "layout": "rows"}, "as_of_ms": 0})
        generation.generate(folder, source, "rows", lambda: np.zeros(N_USERS, bool), lambda *_: None)
        assert erase(path, ERASED) == ErasedLists(unfinished=1)
        with folder.completing():
            with pytest.raises(RunError, match="are being completed"):
                erase(path, ERASED)
            folder.finish({"inputs": {"n": 5, "layout": "rows"}, "as_of": AS_OF, "users": N_USERS})
        with pytest.raises(UsageError, match="Another process"):
            erase(path, ERASED)
    # What a generation leaves that is killed at its very end.
    (path / FROZEN).mkdir()
    (path / PROGRESS).write_text("{}\n")
    assert erase(path, ["nobody"]) == ErasedLists(folders=1)
    assert not (path / FROZEN).exists()
    assert not (path / PROGRESS).exists()
