"""Every user has one list in one file, whatever dies; a generation that was killed goes on."""

import io
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from service.errors import RunError, UsageError
from service.executors.executor import WorkerEvent, using
from service.executors.local_executor import LocalExecutor
from service.generation import generation
from service.generation.bulk_users import BulkUsers, default_shard_users, n_shards, read_ids
from service.generation.files.output_folder import MANIFEST, PROGRESS, OutputFolder
from service.generation.files.shard_format import Layout
from service.generation.files.verification import users_of, verify
from service.generation.lists.list_model import BulkModel
from service.generation.shard_source import ShardSource
from service.lists.list_request import ListRequest
from service.models.snapshot import ModelSnapshot
from telemetry.pseudonym import Pseudonymiser

Erased = Callable[[], np.ndarray]
N_USERS = 47


@pytest.fixture(scope="module")
def source(make_snapshot: Callable[..., ModelSnapshot]) -> ShardSource:
    snapshot = make_snapshot(n_users=N_USERS, n_items=300, seed=3)
    return ShardSource(BulkModel(snapshot, ListRequest(12)), BulkUsers.of_model(snapshot), 10, None, Pseudonymiser())


def nobody() -> np.ndarray:
    return np.zeros(N_USERS, bool)


def no_progress(stage: str, n_done: int, n: int) -> None:
    assert stage == "generate"
    assert 0 <= n_done <= n


def generate(
    path: Path, source: ShardSource, layout: Layout = "rows", erased: Erased = nobody, progress: Any = no_progress
) -> dict[str, Any]:
    """Begin or continue a folder, as the command does."""
    with OutputFolder.held(path) as folder:
        if folder.begun() is None:
            folder.begin({"inputs": {"model": "m", "n": 12, "layout": layout}, "as_of_ms": 0})
        generation.generate(folder, source, layout, erased, progress)
        manifest = {"inputs": {"n": 12, "layout": layout}, "users": N_USERS - int(source.left_out.sum())}
        return folder.finish(manifest)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.parquet"))}


@pytest.fixture(scope="module")
def whole(source: ShardSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a generation that nothing disturbs."""
    path = tmp_path_factory.mktemp("whole") / "lists"
    generate(path, source)
    assert verify(path, lambda *_: None) == {"shards": 5, "users": N_USERS, "rows": N_USERS * 12}
    return contents(path)


def test_the_files_are_the_lists(source: ShardSource, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Both layouts hold the same lists: plain columns that any reader of Parquet knows."""
    generate(tmp_path / "lists", source, "lists")
    assert verify(tmp_path / "lists", lambda *_: None)["users"] == N_USERS
    flat = [row for content in whole.values() for row in parquet.read_table(io.BytesIO(content)).to_pylist()]
    nested = [
        row
        for file in contents(tmp_path / "lists").values()
        for row in parquet.read_table(io.BytesIO(file)).to_pylist()
    ]
    again = [
        {"user_id": user["user_id"], "rank": rank, **item}
        for user in nested
        for rank, item in enumerate(user["items"], 1)
    ]
    assert flat == again
    assert [user["user_id"] for user in nested] == list(source.users.ids)
    schema = parquet.read_schema(io.BytesIO(next(iter(whole.values()))))
    assert [(field.name, str(field.type)) for field in schema] == [
        ("user_id", "string"),
        ("rank", "int32"),
        ("item_id", "string"),
        ("score", "double"),
        ("source", "string"),
    ]


def test_killed_workers_change_nothing(source: ShardSource, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Each worker is killed once in the middle of a shard: the files are those of the undisturbed generation."""
    killed: set[str] = set()

    def kill(event: WorkerEvent) -> None:
        if event.state == "working" and event.worker not in killed:
            killed.add(event.worker)
            os.kill(event.pid, signal.SIGKILL)

    with LocalExecutor(2, tmp_path / "values", kill) as executor, using(executor):
        generate(tmp_path / "lists", source)
    assert killed == {"worker-1", "worker-2"}
    assert contents(tmp_path / "lists") == whole
    assert verify(tmp_path / "lists", lambda *_: None)["users"] == N_USERS


class _Killed(BaseException):
    """Stands for the end of the process: no code of the generation handles it."""


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("torn", [b"", b'{"shard": 3, "fi'])
def test_a_killed_generation_goes_on(
    source: ShardSource, whole: dict[str, bytes], tmp_path: Path, after: int, torn: bytes
) -> None:
    """What is finished is kept, what a killed process left half-done is made again."""
    path = tmp_path / "lists"

    def die(_stage: str, n_done: int, _n: int) -> None:
        if n_done == after:
            raise _Killed

    with pytest.raises(_Killed):
        generate(path, source, progress=die)
    assert not (path / MANIFEST).exists()
    with pytest.raises(RunError, match=r"no manifest\.json"):
        verify(path, lambda *_: None)
    with (path / PROGRESS).open("ab") as file:
        file.write(torn)
    (path / ".shard-00004.parquet.12.tmp").write_bytes(b"half")
    (path / "shard-00004.parquet").write_bytes(b"renamed, and not recorded")
    made: list[int] = []
    generate(path, source, progress=lambda _stage, n_done, _n: made.append(n_done))
    assert made[0] == after
    assert contents(path) == whole
    assert sorted(file.name for file in path.iterdir()) == [".lock", MANIFEST, *whole]


def test_a_damaged_file_is_made_again(source: ShardSource, whole: dict[str, bytes], tmp_path: Path) -> None:
    """One that is there, and is not the one that was recorded."""
    path = tmp_path / "lists"

    def die(_stage: str, n_done: int, _n: int) -> None:
        if n_done == 4:
            raise _Killed

    with pytest.raises(_Killed):
        generate(path, source, progress=die)
    content = bytearray((path / "shard-00001.parquet").read_bytes())
    content[40] ^= 1
    (path / "shard-00001.parquet").write_bytes(content)
    (path / "shard-00002.parquet").unlink()
    generate(path, source)
    assert contents(path) == whole


def test_users_who_are_erased_meanwhile_get_no_list(
    source: ShardSource, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Their shards are made again without them; the other files stay."""
    answers = iter([nobody(), np.arange(N_USERS) == 13, np.arange(N_USERS) == 13])
    generate(tmp_path / "lists", source, erased=lambda: next(answers))
    found = contents(tmp_path / "lists")
    assert {name for name in whole if found[name] != whole[name]} == {"shard-00001.parquet"}
    users = [user for name in whole for user in users_of(tmp_path / "lists" / name)]
    assert users == [f"u{row}" for row in range(N_USERS) if row != 13]
    assert verify(tmp_path / "lists", lambda *_: None)["users"] == N_USERS - 1


def test_a_folder_has_one_writer(source: ShardSource, tmp_path: Path) -> None:
    """Another process is refused before anything is written."""
    with OutputFolder.held(tmp_path / "lists"), pytest.raises(UsageError, match="Another process generates lists in"):
        generate(tmp_path / "lists", source)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt", b"", "holds {}: name a new or an empty folder"),
        (".report.tmp", b"unsaved", "holds {}: name a new or an empty folder"),
        (".shard-00001.parquet.12.tmp/kept", b"", "holds .shard-00001.parquet.12.tmp: name a new"),
        ("progress.jsonl", b'{"done": 3}\n', "damaged, or of another version"),
        ("manifest.json", b'{"name": "a web page"}', "is not of format 1"),
        ("manifest.json", b"[]", "is not of format 1"),
    ],
)
def test_a_folder_of_something_else_stays_as_it_is(
    source: ShardSource, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    """It is refused, and nothing is written into it or removed from it."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises((UsageError, RunError), match=re.escape(reason.format(name))),
        OutputFolder.held(tmp_path) as folder,
    ):
        assert folder.manifest() is not None or folder.begun() is not None
    assert sorted(tmp_path.rglob("*")) == before
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}\n",
        b"[1]\n",
        b'{"format": 1}\n',
        b'{"format": 1, "as_of_ms": 1, "inputs": {"n": 1}}\n',
        b'{"format": 1, "as_of_ms": 1, "inputs": {"model": "m"}}\n{"shard": 0}\n',
        b'{"format": 9, "as_of_ms": 1, "inputs": {"model": "m"}}\n',
        b"\0\n",
    ],
)
def test_a_record_of_progress_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    """Its owner decides about the folder; one that looks for a folder to continue passes it over."""
    (tmp_path / PROGRESS).write_bytes(content)
    with OutputFolder.held(tmp_path) as folder, pytest.raises(UsageError, match=r"progress\.jsonl is damaged, or of"):
        folder.begun()
    if b"shard" not in content:
        assert OutputFolder(tmp_path).peek() is None


@pytest.fixture
def damaged(source: ShardSource, tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes another table into a file of a complete folder; returns what is found out."""
    path = tmp_path / "lists"
    generate(path, source)

    def write(change: Callable[[Any], Any], *, names_it: bool = True) -> str:
        import hashlib

        file = path / "shard-00002.parquet"
        parquet.write_table(change(parquet.read_table(file)), file)
        if names_it:
            manifest = json.loads((path / MANIFEST).read_bytes())
            shard = manifest["shards"][2]
            shard |= {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            (path / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(RunError) as refused:
            verify(path, lambda *_: None)
        return str(refused.value)

    return write


def test_verify_finds_what_is_wrong(damaged: Callable[..., str], tmp_path: Path) -> None:
    """Another file, a missing user, a user of another file, an item twice, ranks out of order, a file too many."""
    assert "is not the file of manifest.json" in damaged(lambda table: table, names_it=False)
    assert "has 9 users with 108 items" in damaged(lambda table: table.slice(12))
    other = parquet.read_table(tmp_path / "lists" / "shard-00000.parquet")
    assert "has other users than" in damaged(lambda _: other)
    assert "names an item twice" in damaged(lambda _: other.set_column(2, "item_id", [["i1"] * other.num_rows]))
    ranks = other["rank"].to_numpy().copy()
    ranks[1:3] = 3, 2
    assert "a rank or a user out of order" in damaged(lambda _: other.set_column(1, "rank", [ranks]))
    (tmp_path / "lists" / "shard-00009.parquet").touch()
    assert "holds shard-00009.parquet, which is not in" in damaged(lambda _: other)


def test_shards_follow_from_the_data_alone() -> None:
    """Enough of them for some workers, and neither tiny nor huge files."""
    sizes = {(n_users, n): default_shard_users(n_users, n) for n_users, n in ((0, 10), (6040, 100), (10**6, 100))}
    assert sizes == {(0, 10): 1000, (6040, 100): 1000, (10**6, 100): 31_250}
    assert default_shard_users(10**8, 100) == 50_000
    assert default_shard_users(10**8, 1000) == 5_000
    assert [n_shards(n, 1000) for n in (0, 1, 1000, 1001)] == [1, 1, 1, 2]


def test_users_of_a_file(make_snapshot: Callable[..., ModelSnapshot]) -> None:
    """Each once, in their order; the model need not know them, and pseudonyms stand for ids of callers."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    snapshot = make_snapshot(n_users=3)
    ids = read_ids([b"u2\r\n", b"\n", b"new\n", b"u2\n", b" u0"], "users.txt")
    users = BulkUsers.named(snapshot, ids, pseudonyms)
    assert (list(users.ids), users.rows.tolist()) == (["u2", "new", "u0"], [2, -1, 0])
    with pytest.raises(UsageError, match=r"users\.txt, line 2: an id must be 1 to 128 characters"):
        read_ids([b"u1\n", b"u\x01\n"], "users.txt")
    with pytest.raises(UsageError, match="line 1: the id is not UTF-8"):
        read_ids([b"\xff\n"], "users.txt")
    with pytest.raises(UsageError, match="names no user"):
        read_ids([b"\n"], "users.txt")
