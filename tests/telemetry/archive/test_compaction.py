import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.archive import compaction
from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import cut_to_committed
from telemetry.archive.archive_reader import read
from telemetry.archive.compaction import compact
from telemetry.archive.parquet_file import read_lines
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import ErasureRequest
from telemetry.erasure.erasure_requests import replace_file
from telemetry.erasure.line_matcher import LineMatcher
from telemetry.erasure.rewriting import rewrite
from telemetry.errors import ArchiveError
from tests.support.archives.archive_commits import addition, commit, line, lines_of, seal
from tests.support.sample_events import feedback, served

BEFORE = "2026-11-23"
EVENTS = [
    (seq, feedback(event_id=f"event-{seq}", user_id=f"user-{seq % 3}", received_at=f"2026-11-2{day}T01:02:03.456Z"))
    for seq, day in enumerate((1, 1, 1, 2, 2, 3, 3), 1)
]
LINES = [line(event, seq) for seq, event in EVENTS]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three dates in four sealed files and one dead letter."""
    commit(tmp_path, addition(EVENTS[:2], [(90, "dead_lettered")]))
    commit(tmp_path, addition(EVENTS[2:]))
    seal(tmp_path)
    assert list(read(tmp_path)) == LINES
    return tmp_path


def files(root: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name.partition('-')[0]}{path.suffix}" for path in root.glob("*/*"))


def test_past_dates_become_one_file_each_with_the_same_lines(root: Path) -> None:
    """What is read before and after is the same, byte for byte; later dates and dead letters stay as they are."""
    before = list(read(root)), list(read(root, dead_letters=True))
    first, second = compact(root, BEFORE)
    assert (first.day, first.files, first.lines, first.before_bytes) == ("2026-11-21", 2, 3, sum(map(len, LINES[:3])))
    assert (second.day, second.files, second.lines, second.open_files) == ("2026-11-22", 1, 2, 0)
    assert (list(read(root)), list(read(root, dead_letters=True))) == before
    assert files(root) == [
        "date=2026-11-21/compact.parquet",
        "date=2026-11-22/compact.parquet",
        "date=2026-11-23/part.jsonl",
        "deadletters/part.jsonl",
    ]
    (path,) = root.glob("date=2026-11-21/*")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_compacted_date_is_not_compacted_again(root: Path) -> None:
    """The second time there is nothing to do."""
    list(compact(root, BEFORE))
    names = files(root)
    assert [one.files for one in compact(root, BEFORE)] == [0, 0]
    assert files(root) == names


def test_later_lines_are_compacted_with_the_rest(root: Path) -> None:
    """A date that was compacted may get more events; the next compaction makes one file of both."""
    list(compact(root, BEFORE))
    late = feedback(event_id="late", received_at="2026-11-21T23:59:59.999Z")
    commit(root, addition([(8, late)]))
    seal(root)
    together = list(read(root, last=None))
    assert [one.files for one in compact(root, BEFORE)] == [2, 0]
    assert list(read(root)) == together
    assert sorted(together) == sorted([*LINES, line(late, 8)])


def test_a_file_that_may_still_grow_is_left(tmp_path: Path) -> None:
    """The consumer goes on appending to it, and what it commits is read."""

    async def work() -> None:
        archive = Archive(tmp_path)
        await archive.acquire(1.0)
        await archive.commit(addition(EVENTS[:1]))
        (one,) = compact(tmp_path, BEFORE)
        assert (one.files, one.open_files) == (0, 1)
        await archive.commit(addition(EVENTS[1:3]))
        await archive.close()

    asyncio.run(work())
    assert list(read(tmp_path)) == LINES[:3]


def test_a_consumer_that_takes_the_lease_leaves_parquet_alone(root: Path) -> None:
    """It cuts and removes parts only."""
    list(compact(root, BEFORE))
    names = files(root)
    commit(root, addition([(9, feedback(event_id="late", received_at="2026-11-22T10:00:00.000Z"))]))
    assert set(names) < set(files(root))
    assert len(list(read(root))) == len(LINES) + 1


STEPS = ["write_lines", "sync_directory", "read_lines", "_replace_rows"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_anywhere_leaves_one_archive(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    """Before and after each step: every line is read once, and the next compaction cleans up and finishes."""
    real = getattr(compaction, step)
    pid = os.fork()
    if pid == 0:

        def crash(*arguments: object) -> object:
            if after:
                result = real(*arguments)
                for _ in result if isinstance(result, Iterator) else ():
                    pass
            os._exit(7)

        monkeypatch.setattr(compaction, step, crash)
        list(compact(root, BEFORE))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert list(read(root)) == LINES
    list(compact(root, BEFORE))
    assert list(read(root)) == LINES
    assert files(root) == [
        "date=2026-11-21/compact.parquet",
        "date=2026-11-22/compact.parquet",
        "date=2026-11-23/part.jsonl",
        "deadletters/part.jsonl",
    ]


def test_parts_that_may_be_about_to_count_are_not_cleaned(root: Path) -> None:
    """A part of the current rotation belongs to the consumer, even if the catalogue lacks it."""
    lease = Catalogue(root).lease.read().epoch
    old = root / "date=2026-11-21" / f"part-{lease - 1:08d}-000009.jsonl"
    present = root / "date=2026-11-21" / f"part-{lease:08d}-000000.jsonl"
    foreign = root / "date=2026-11-21" / "notes.txt"
    for path in (old, present, foreign):
        path.write_text("x\n")
    list(compact(root, BEFORE))
    assert (old.exists(), present.exists(), foreign.exists()) == (False, True, True)


def test_a_copy_that_differs_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read back before anything depends on it."""
    names = files(root)
    monkeypatch.setattr(compaction, "read_lines", lambda path: reversed(list(read_lines(path))))
    with pytest.raises(ArchiveError, match="does not read back"):
        list(compact(root, BEFORE))
    assert (files(root), list(read(root))) == (names, LINES)


def test_a_second_compaction_is_refused(root: Path) -> None:
    """It changes nothing."""
    with (root / "compact.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ArchiveError, match="Another compaction"):
            list(compact(root, BEFORE))
    assert len(list(compact(root, BEFORE))) == 2


def test_a_full_disk_is_noticed_before_it_is_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer needs the room."""
    status = os.statvfs_result((4096, 4096, 10**6, 10, 10, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: status)
    with pytest.raises(ArchiveError, match="MiB are free"):
        list(compact(root, BEFORE))
    assert list(read(root)) == LINES


def test_a_directory_without_an_archive_stays_as_it_is(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    assert list(compact(tmp_path, BEFORE)) == []
    assert list(tmp_path.iterdir()) == []


class TestWithAnErase:
    """`user-1` is erased: events 1, 4 and 7."""

    LEFT = tuple(text for text in LINES if b'"user-1"' not in text)

    def erase(self, root: Path) -> None:
        """Rewrite every sealed file as the lease holder does."""
        catalogue = Catalogue(root)
        lease = catalogue.lease.acquire(catalogue.lease.read(), "eraser", "here", locked=False)
        assert lease is not None
        users = LineMatcher([ErasureRequest("e", "user-1", "digest", "2026-12-01T00:00:00.000Z")])
        for path, length in catalogue.files(sealed=True).items():
            replacement = rewrite(root, lease.epoch, path, length, users)
            if replacement is not None:
                assert replace_file(catalogue.database, lease.epoch, replacement)
                (root / path).unlink()
        catalogue.close()

    def test_after_a_compaction(self, root: Path) -> None:
        """The Parquet files are rewritten, and remain files that can be compacted and read."""
        list(compact(root, BEFORE))
        self.erase(root)
        assert list(read(root)) == [*self.LEFT]
        assert b"user-1" not in b"".join(read(root))
        list(compact(root, "2026-11-24"))
        assert list(read(root)) == [*self.LEFT]

    def test_all_lines_of_a_file(self, tmp_path: Path) -> None:
        """A compacted file without a line is still one."""
        commit(tmp_path, addition([(1, served(user_id="user-1"))]))
        seal(tmp_path)
        list(compact(tmp_path, BEFORE))
        self.erase(tmp_path)
        assert list(read(tmp_path)) == []
        list(compact(tmp_path, BEFORE))

    def test_in_the_middle_of_a_compaction(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first to replace a file wins, and the user does not come back."""
        done: list[Path] = []

        def read_while_erasing(path: Path) -> Iterator[bytes]:
            if not done:
                done.append(path)
                self.erase(root)
            return read_lines(path)

        monkeypatch.setattr(compaction, "read_lines", read_while_erasing)
        with pytest.raises(ArchiveError, match="compact again"):
            list(compact(root, BEFORE))
        assert list(read(root)) == [*self.LEFT]
        assert lines_of(root, "date=*/*.parquet") == []
        list(compact(root, BEFORE))
        assert list(read(root)) == [*self.LEFT]

    def test_the_remains_of_a_rewrite_are_kept(self, root: Path) -> None:
        """It may be about to count; the holder of the lease cleans up after itself."""
        list(compact(root, BEFORE))
        (compacted,) = root.glob("date=2026-11-21/*.parquet")
        rewritten = compacted.with_name(f"{compacted.stem}.rewritten-00000009-1.parquet")
        rewritten.write_bytes(b"x")
        list(compact(root, BEFORE))
        assert rewritten.exists()
        catalogue = Catalogue(root)
        cut_to_committed(root, catalogue.files(), 10)
        catalogue.close()
        assert not rewritten.exists()
        assert list(read(root)) == LINES
