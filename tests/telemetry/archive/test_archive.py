import asyncio
import os
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest

from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import DEAD_LETTERS, ArchiveFiles, cut_to_committed
from telemetry.archive.archive_reader import committed_files, read
from telemetry.batch import Position
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import CatalogueChange, CommitContent, FileLength, Progress, SeenEvent
from telemetry.catalogue.lease import HolderLock, Lease, LeaseWatch, holder_name
from telemetry.errors import ArchiveError, LeaseLostError
from telemetry.notes import Note, StandingBy

DAY = "date=2026-11-21"
TAKEOVER_S = 0.5


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path)
    await archive.acquire(TAKEOVER_S)
    yield archive
    await archive.close()


async def put(archive: Archive, seq: int, *lines: bytes, folder: str = DAY) -> None:
    progress = {("p", 1): Progress(seq, archived=len(lines))}
    await archive.commit(
        CommitContent({folder: list(lines)}, progress, [SeenEvent("default", f"id-{seq}", b"%d" % seq)])
    )


async def test_committed_lines_are_read_back_and_only_they(tmp_path: Path, archive: Archive) -> None:
    """A reader gets every committed line once, by date, and nothing beyond the committed length."""
    await put(archive, 2, b"one\n", b"two\n")
    await put(archive, 3, b"three\n", folder="date=2026-11-22")
    await put(archive, 4, b"late\n")
    await put(archive, 5, b"dead\n", folder=DEAD_LETTERS)
    first = tmp_path / DAY / "part-00000001-000000.jsonl"
    with first.open("ab") as file:
        file.write(b"not committed\n")
    assert list(read(tmp_path)) == [b"one\n", b"two\n", b"late\n", b"three\n"]
    assert list(read(tmp_path, first=date(2026, 11, 22))) == [b"three\n"]
    assert list(read(tmp_path, last=date(2026, 11, 21))) == [b"one\n", b"two\n", b"late\n"]
    assert list(read(tmp_path, dead_letters=True)) == [b"dead\n"]
    assert committed_files(tmp_path)[0] == (first, 13, 3)
    assert archive.watermarks == {"p": Position(1, 5)}
    asked = [("default", "id-2"), ("default", "id-9"), ("other", "id-2")]
    assert await archive.seen_fingerprints(asked) == {("default", "id-2"): {b"2"}}


def test_an_archive_without_a_commit_is_empty(tmp_path: Path) -> None:
    """An early reader finds nothing, and no error."""
    assert list(read(tmp_path)) == []


async def test_a_restart_cuts_what_was_not_committed(tmp_path: Path) -> None:
    """A tail without a commit is cut off, a file without one is removed, and committed lines stay."""
    first = Archive(tmp_path)
    await first.acquire(TAKEOVER_S)
    await put(first, 1, b"one\n")
    await first.close()
    tail = tmp_path / DAY / "part-00000001-000000.jsonl"
    with tail.open("ab") as file:
        file.write(b"torn of")
    orphan = tmp_path / DAY / "part-00000001-000009.jsonl"
    orphan.write_bytes(b"orphan\n")
    second = Archive(tmp_path)
    assert await second.acquire(TAKEOVER_S) == 2
    assert tail.read_bytes() == b"one\n"
    assert not orphan.exists()
    assert second.damaged == []
    await put(second, 2, b"two\n")
    await second.close()
    assert list(read(tmp_path)) == [b"one\n", b"two\n"]


async def test_a_file_shorter_than_committed_is_reported(tmp_path: Path) -> None:
    """Damage from outside is neither hidden nor a reason to stop archiving."""
    first = Archive(tmp_path)
    await first.acquire(TAKEOVER_S)
    await put(first, 2, b"one\n", b"two\n")
    await first.close()
    os.truncate(tmp_path / DAY / "part-00000001-000000.jsonl", 6)
    second = Archive(tmp_path)
    await second.acquire(TAKEOVER_S)
    assert second.damaged == [f"{DAY}/part-00000001-000000.jsonl"]
    with pytest.raises(ArchiveError, match="damaged"):
        list(read(tmp_path))
    await second.close()


async def test_a_full_disk_adds_nothing_and_the_next_commit_begins_a_new_part(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the file is abandoned; its uncommitted lines never count."""
    await put(archive, 1, b"one\n")

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(ArchiveError, match="No space left"):
        await put(archive, 2, b"two\n")
    monkeypatch.undo()
    assert archive.watermarks == {"p": Position(1, 1)}
    await put(archive, 2, b"two again\n")
    assert list(read(tmp_path)) == [b"one\n", b"two again\n"]
    assert [file.path.name for file in committed_files(tmp_path)] == [
        "part-00000001-000000.jsonl",
        "part-00000001-000001.jsonl",
    ]


async def test_a_zombie_cannot_commit(tmp_path: Path, archive: Archive) -> None:
    """A consumer that lost the lease fails at the catalogue, and its lines never count."""
    await put(archive, 1, b"one\n")
    other = Catalogue(tmp_path)
    lease = other.lease.acquire(other.lease.read(), "other", "elsewhere", locked=False)
    assert lease is not None
    assert lease.epoch == 2
    with pytest.raises(LeaseLostError):
        await put(archive, 2, b"zombie\n")
    with pytest.raises(LeaseLostError):
        await archive.beat()
    assert other.watermarks() == {"p": Position(1, 1)}
    assert other.files() == {f"{DAY}/part-00000001-000000.jsonl": FileLength(4, 1)}
    await archive.release()
    assert other.lease.read().holder == "other"
    other.close()


async def test_a_released_lease_is_acquired_at_once_and_a_dead_holders_too(tmp_path: Path) -> None:
    """Neither a clean stop nor a death on this machine costs the takeover time."""
    first, second, third = Archive(tmp_path), Archive(tmp_path), Archive(tmp_path)
    await first.acquire(3600)
    await first.close()
    async with asyncio.timeout(5):
        await second.acquire(3600)
        # What the kernel does for a process that dies.
        assert second._lock is not None
        second._lock.release()
        assert await third.acquire(3600) == 3
    await third.close()
    await second.close()


async def test_a_living_holder_keeps_the_lease_and_a_frozen_one_loses_it(tmp_path: Path) -> None:
    """As long as the heartbeat moves a standby waits; when it stands still for the takeover time it takes over."""
    holder, standby = Archive(tmp_path), Archive(tmp_path)
    await holder.acquire(TAKEOVER_S)
    notes: list[Note] = []
    taking = asyncio.create_task(standby.acquire(TAKEOVER_S, notes.append))
    loop = asyncio.get_running_loop()
    until = loop.time() + 3 * TAKEOVER_S
    while loop.time() < until:
        await holder.beat()
        assert not taking.done()
        await asyncio.sleep(TAKEOVER_S / 10)
    async with asyncio.timeout(10):
        assert await taking == 2
    assert notes == [StandingBy(holder_name())]
    with pytest.raises(LeaseLostError):
        await holder.beat()
    await holder.close()
    await standby.close()


def test_three_rules_let_a_standby_take_over() -> None:
    """Released, dead on this machine, or still for long enough; a moving heartbeat starts the wait again."""
    held = Lease(3, "holder", 10, "here", locked=True)
    watch = LeaseWatch(4.0, "here")
    assert watch.may_acquire(held._replace(holder=""), 0.0, locked=False)
    assert watch.may_acquire(held, 0.0, locked=True)
    assert not watch.may_acquire(held, 0.0, locked=False)
    assert not watch.may_acquire(held._replace(machine="there"), 1.0, locked=True)
    assert not watch.may_acquire(held._replace(locked=False), 3.9, locked=True)
    assert not watch.may_acquire(held._replace(beat=11), 4.1, locked=False)
    assert not watch.may_acquire(held._replace(beat=11), 8.0, locked=False)
    assert watch.may_acquire(held._replace(beat=11), 8.1, locked=False)


def test_the_holders_lock_is_exclusive(tmp_path: Path) -> None:
    """Two holders on one machine cannot both have it; getting it again is no error."""
    one, two = HolderLock(tmp_path), HolderLock(tmp_path)
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    one.release()
    assert two.acquire()
    two.release()


def test_old_event_ids_expire_in_small_steps(tmp_path: Path) -> None:
    """The window is kept by deleting a bounded number at a time, and only by the holder."""
    catalogue = Catalogue(tmp_path)
    lease = catalogue.lease.acquire(catalogue.lease.read(), "me", "here", locked=True)
    assert lease is not None
    catalogue.commit(
        lease.epoch,
        CatalogueChange(
            added=CommitContent(seen=[SeenEvent("t", f"id-{number}", b"") for number in range(10)]), now_s=100
        ),
    )
    assert catalogue.expire_seen(lease.epoch, 100, 50) == 0
    assert catalogue.expire_seen(lease.epoch - 1, 101, 50) == 0
    assert catalogue.expire_seen(lease.epoch, 101, 4) == 4
    assert catalogue.expire_seen(lease.epoch, 101, 50) == 6
    catalogue.close()


def test_a_catalogue_of_another_version_is_refused(tmp_path: Path) -> None:
    """A later program's archive is not touched."""
    catalogue = Catalogue(tmp_path)
    catalogue.database.sql.execute("PRAGMA user_version = 99")
    catalogue.close()
    with pytest.raises(ArchiveError, match="version 99"):
        Catalogue(tmp_path)


def test_event_ids_are_found_by_tenant(tmp_path: Path) -> None:
    """Several tenants and more ids than one query takes: exactly those that were committed."""
    catalogue = Catalogue(tmp_path)
    lease = catalogue.lease.acquire(catalogue.lease.read(), "me", "here", locked=True)
    assert lease is not None
    known = [(tenant, f"id-{number}") for tenant in ("a", "b") for number in range(0, 1000, 2)]
    seen = [SeenEvent(*key, fingerprint) for key in known for fingerprint in (b"1", b"2")]
    catalogue.commit(lease.epoch, CatalogueChange(added=CommitContent(seen=seen), now_s=100))
    asked = [(tenant, f"id-{number}") for tenant in ("a", "b", "c") for number in range(1000)]
    assert catalogue.seen_fingerprints(asked) == {key: {b"1", b"2"} for key in known}
    assert catalogue.seen_fingerprints([]) == {}
    plan = catalogue.database.sql.execute(
        "EXPLAIN QUERY PLAN SELECT event_id, fingerprint FROM seen WHERE tenant = ? AND event_id IN (?, ?)",
        ("a", "b", "c"),
    ).fetchall()
    # Reading the whole table would take seconds once it holds a week.
    assert "SEARCH seen USING PRIMARY KEY" in plan[0][3]
    catalogue.close()


async def test_rotation_is_due_by_size_or_age_and_seals_the_older_parts(tmp_path: Path) -> None:
    """The first commit of a rotation seals the older parts, of every folder; the new ones are open."""
    archive = Archive(tmp_path, part_bytes=8)
    await archive.acquire(TAKEOVER_S)
    await put(archive, 1, b"one\n")
    await put(archive, 2, b"late\n", folder="date=2026-11-20")
    await put(archive, 3, b"two\n")
    assert await archive.sealed_files() == {}
    await put(archive, 4, b"three\n")
    assert await archive.sealed_files() == {
        "date=2026-11-20/part-00000001-000000.jsonl": FileLength(5, 1),
        f"{DAY}/part-00000001-000000.jsonl": FileLength(8, 2),
    }
    assert list(read(tmp_path, first=date(2026, 11, 21))) == [b"one\n", b"two\n", b"three\n"]
    await archive.seal(if_due=True)
    assert len(await archive.sealed_files()) == 2
    await archive.seal()
    await archive.seal()
    assert len(await archive.sealed_files()) == 3
    await put(archive, 5, b"four\n")
    assert len(await archive.sealed_files()) == 3
    await archive.close()
    successor = Archive(tmp_path)
    await successor.acquire(TAKEOVER_S)
    assert len(await successor.sealed_files()) == 4
    await successor.close()


def test_a_rotation_grows_old_from_its_first_commit(tmp_path: Path) -> None:
    """Time without events does not count, and neither does a rotation without lines."""
    now_s = 0.0
    parts = ArchiveFiles(tmp_path, 1, 1 << 20, 900.0, clock=lambda: now_s)
    now_s = 1000.0
    assert (parts.rotation_due, parts.is_fresh) == (False, True)
    parts.committed(parts.append({DAY: (b"one\n", 1)}))
    now_s = 1899.0
    assert (parts.rotation_due, parts.is_fresh) == (False, False)
    now_s = 1900.0
    assert parts.rotation_due
    parts.rotate()
    assert (parts.rotation_due, parts.is_fresh) == (False, True)
    parts.close()


async def test_after_a_full_disk_the_abandoned_part_is_sealed_by_the_next_commit(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that was abandoned after a failed sync never grows again, and is sealed."""
    await put(archive, 1, b"one\n")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", lambda _fd: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(ArchiveError):
            await put(archive, 2, b"two\n")
    assert await archive.sealed_files() == {}
    await put(archive, 2, b"two\n")
    assert await archive.sealed_files() == {f"{DAY}/part-00000001-000000.jsonl": FileLength(4, 1)}


def test_parts_reopen_an_older_date(tmp_path: Path) -> None:
    """More dates than may be open at once are still appended to where they ended."""
    parts = ArchiveFiles(tmp_path, 1, 1 << 20, 900.0)
    for turn in range(2):
        for day in range(10, 30):
            lengths = parts.append({f"date=2026-11-{day}": (b"%d\n" % turn, 1)})
            parts.committed(lengths)
    parts.close()
    assert (tmp_path / "date=2026-11-10" / "part-00000001-000000.jsonl").read_bytes() == b"0\n1\n"
    for name in ("kept.parquet", "gone.rewritten-00000001-1.parquet"):
        (tmp_path / "date=2026-11-10" / name).touch()
    assert cut_to_committed(tmp_path, {}, 1) == []
    # Compaction looks after its own files.
    assert [path.name for path in tmp_path.glob("date=*/*")] == ["kept.parquet"]
