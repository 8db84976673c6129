"""SQLite's journal of a catalogue: by the file system, kept once it is a rollback journal, and changed by request."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.catalogue import journal_kind
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import FILE_NAME, change_journal, query_catalogue
from telemetry.catalogue.journal_kind import choose, file_system_of, is_network
from telemetry.catalogue.lease import LeaseWatch
from telemetry.errors import ArchiveError, LeaseLostError


def test_the_type_of_a_file_system_is_read_from_the_mounts(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        f"31 22 {number} / /srv/archive rw,relatime shared:2 master:1 - nfs4 10.0.0.9:/srv rw,vers=4.2\n"
    )
    if number != "254:0":
        assert file_system_of(tmp_path, mounts) == "nfs4"
    assert file_system_of(tmp_path, tmp_path / "missing") is None
    assert file_system_of(tmp_path) is not None


@pytest.mark.parametrize(
    ("file_system", "network"),
    [("nfs4", True), ("ceph", True), ("fuse.glusterfs", True), ("ext4", False), ("tmpfs", False), (None, False)],
)
def test_the_file_system_decides_unless_there_is_a_rollback_journal(file_system: str | None, *, network: bool) -> None:
    assert is_network(file_system) == network
    expected = "rollback" if network else "write-ahead"
    assert (choose(None, file_system), choose("write-ahead", file_system)) == (expected, expected)
    assert choose("rollback", file_system) == "rollback"


def lease_of_another_process(root: Path) -> str:
    code = (
        "import sys; from pathlib import Path; from telemetry.catalogue.catalogue import Catalogue\n"
        "print(Catalogue(Path(sys.argv[1])).lease.read().holder)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


def test_a_catalogue_on_a_network_file_system_has_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one and one that had the write-ahead journal; no other machine changes it back."""
    with closing(Catalogue(tmp_path)) as catalogue:
        assert change_journal(tmp_path) == "write-ahead"
        monkeypatch.setattr(journal_kind, "file_system_of", lambda _: "nfs4")
        with pytest.raises(ArchiveError, match="stop every consumer"):
            Catalogue(tmp_path)
        assert catalogue.lease.read().holder == ""
    with closing(Catalogue(tmp_path)) as catalogue:
        first = catalogue.lease.acquire(catalogue.lease.read(), "one:1", "machine-1", locked=True)
        assert first is not None
        # A reader waits for no writer, and the other way round, longer than a transaction takes.
        assert query_catalogue(tmp_path, "SELECT holder FROM lease") == [("one:1",)]
        monkeypatch.undo()
        assert lease_of_another_process(tmp_path) == "one:1"
        assert change_journal(tmp_path) == "rollback"
    assert not (tmp_path / f"{FILE_NAME}-wal").exists()
    assert not (tmp_path / f"{FILE_NAME}-shm").exists()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() != ("wal",)


def test_a_heartbeat_of_another_machine_decides_over_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file lock of a process elsewhere says nothing here: a standby waits for the heartbeat to stand still."""
    monkeypatch.setattr(journal_kind, "file_system_of", lambda _: "nfs4")
    with closing(Catalogue(tmp_path)) as one, closing(Catalogue(tmp_path)) as other:
        held = one.lease.acquire(one.lease.read(), "one:1", "machine-1", locked=True)
        assert held is not None
        watch = LeaseWatch(4.0, "machine-2")
        assert not watch.may_acquire(other.lease.read(), 0.0, locked=True)
        one.lease.beat(held.epoch, locked=True)
        assert not watch.may_acquire(other.lease.read(), 4.0, locked=True)
        seen = other.lease.read()
        assert watch.may_acquire(seen, 8.0, locked=True)
        taken = other.lease.acquire(seen, "two:1", "machine-2", locked=True)
        assert taken is not None
        with pytest.raises(LeaseLostError):
            one.lease.beat(held.epoch, locked=True)


def test_a_reader_undoes_what_a_dead_machine_left_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that the machine did not finish is in the journal; no consumer has to come first."""
    monkeypatch.setattr(journal_kind, "file_system_of", lambda _: "nfs4")
    living, dead = tmp_path / "living", tmp_path / "dead"
    living.mkdir()
    with closing(Catalogue(living)) as catalogue:
        sql = catalogue.database.sql
        catalogue.set_setting("kept", "1")
        # Pages that do not fit the cache are written before the commit, and are in the journal as they were.
        sql.execute("PRAGMA cache_size=1")
        sql.execute("BEGIN IMMEDIATE")
        sql.executemany("INSERT INTO settings VALUES (?, ?)", [(f"unfinished-{i}", "x" * 500) for i in range(200)])
        shutil.copytree(living, dead)
        sql.execute("ROLLBACK")
    assert (dead / f"{FILE_NAME}-journal").stat().st_size > 0
    assert query_catalogue(dead, "SELECT count(*) FROM settings WHERE name LIKE 'unfinished%'") == [(0,)]
    assert query_catalogue(dead, "SELECT value FROM settings WHERE name = 'kept'") == [("1",)]


def test_the_journal_is_changed_by_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a machine that exports its own disk; refused while it is in use, and where it would be unsound."""
    with pytest.raises(ArchiveError, match="There is no catalogue"):
        change_journal(tmp_path, "rollback")
    with closing(Catalogue(tmp_path)), pytest.raises(ArchiveError, match="stop every consumer"):
        change_journal(tmp_path, "rollback")
    assert change_journal(tmp_path, "rollback") == "rollback"
    with closing(Catalogue(tmp_path)):
        assert change_journal(tmp_path) == "rollback"
    assert change_journal(tmp_path, "write-ahead") == "write-ahead"
    monkeypatch.setattr(journal_kind, "file_system_of", lambda _: "cifs")
    with pytest.raises(ArchiveError, match=r"a network file system \(cifs\)"):
        change_journal(tmp_path, "write-ahead")
