"""Standbys and real processes that are frozen while they hold a lock of the archive, or only seem to be."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from telemetry.archive.archive import Archive
from telemetry.notes import ArchiveFailed, FrozenProcessEnded, Note, StandingBy

ROOT = Path(__file__).parents[3]
TAKEOVER_S = 0.5
# Each does one thing in the archive and then says so; the rest depends on the case.
_SCRIPT = """
import os, signal, sqlite3, sys, time
from pathlib import Path
from telemetry.archive.archive_lock import COMPACTION_LOCK, try_lock
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.lease import HolderLock, holder_name, this_machine

root, does, then = Path(sys.argv[1]), sys.argv[2].split("+"), sys.argv[3]
catalogue, lock = Catalogue(root), HolderLock(root)
if "lease" in does:
    seen = catalogue.lease.read()
    assert lock.acquire() and catalogue.lease.acquire(seen, holder_name(), this_machine(), locked=True)
if "file" in does:
    kept = try_lock(root / COMPACTION_LOCK)
    assert kept.__enter__()
if "write" in does:
    catalogue.database.sql.execute("BEGIN IMMEDIATE")
    catalogue.database.sql.execute("INSERT INTO settings VALUES ('half', 'way')")
if "whole" in does:
    catalogue.close()
    whole = sqlite3.connect(root / "catalogue.sqlite3", isolation_level=None)
    whole.execute("PRAGMA locking_mode=EXCLUSIVE")
    whole.execute("BEGIN IMMEDIATE")
print("done", flush=True)
if then == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
while then == "work":
    time.sleep(0.01)
"""
AwaitUntil = Callable[..., Awaitable[None]]
Begin = Callable[[str, str], subprocess.Popen[str]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts a process that does something in the archive and then stops itself, or goes on to work."""
    processes = []

    def begin(does: str, then: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(tmp_path), does, then], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        if then == "stop":
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "does",
    [
        pytest.param("lease+write", id="the holder, within a transaction"),
        pytest.param("lease+file", id="the holder, while it removes files"),
        pytest.param("lease+write+file", id="the holder, with both locks"),
        pytest.param("write", id="another process, within a transaction"),
        pytest.param("whole", id="another process, with the whole file"),
    ],
)
async def test_a_frozen_process_that_keeps_a_lock_is_ended(tmp_path: Path, begin: Begin, does: str) -> None:
    """The lease is acquired, half a transaction does not count, and all locks are free."""
    frozen = begin(does, "stop")
    archive = Archive(tmp_path)
    notes: list[Note] = []
    async with asyncio.timeout(20):
        await archive.acquire(TAKEOVER_S, notes.append)
    assert FrozenProcessEnded(frozen.pid) in notes
    assert frozen.wait(10) == -signal.SIGKILL
    rows = await archive.read_catalogue(
        lambda database: database.sql.execute("SELECT * FROM settings WHERE name = 'half'").fetchall()
    )
    assert rows == []
    await archive.beat()
    await archive.close()


@pytest.mark.parametrize("does", ["lease", "file"])
async def test_a_frozen_process_that_blocks_nothing_is_left_alone(tmp_path: Path, begin: Begin, does: str) -> None:
    """A holder loses its lease by its heartbeat; a compaction that an operator has stopped goes on later."""
    frozen = begin(does, "stop")
    archive = Archive(tmp_path)
    notes: list[Note] = []
    async with asyncio.timeout(20):
        await archive.acquire(TAKEOVER_S, notes.append)
    assert [type(note) for note in notes] == [StandingBy] * (does == "lease")
    assert frozen.poll() is None
    await archive.close()


async def test_a_process_that_works_is_waited_for(tmp_path: Path, begin: Begin, await_until: AwaitUntil) -> None:
    """It holds the lock for longer than the takeover time, as an upgrade of a large catalogue does."""
    working = begin("write", "work")
    archive = Archive(tmp_path)
    notes: list[Note] = []
    acquiring = asyncio.create_task(archive.acquire(TAKEOVER_S, notes.append))
    # Its first attempt waits within SQLite for longer than the takeover time.
    await await_until(lambda: notes, 20, what="the standby to report")
    await asyncio.sleep(2 * TAKEOVER_S)
    assert working.poll() is None
    assert not acquiring.done()
    working.kill()
    async with asyncio.timeout(20):
        await acquiring
    assert [type(note) for note in notes] == [ArchiveFailed]
    await archive.close()
