import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from telemetry.archive.archive_reader import read
from telemetry.archive.archive_snapshot import open_files, open_snapshot
from telemetry.archive.compaction import compact
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import Progress
from telemetry.errors import ArchiveError
from tests.support.archives.archive_commits import PRODUCER, addition, commit, line, lines_of, seal
from tests.support.sample_events import feedback

DAY = "date=2026-11-21"
EVENTS = [(seq, feedback(event_id=f"event-{seq}")) for seq in range(1, 6)]
LINES = [line(event, seq) for seq, event in EVENTS]


def test_an_archive_without_a_commit_is_empty(tmp_path: Path) -> None:
    """Looking makes nothing."""
    with open_snapshot(tmp_path / "none") as taken:
        assert (taken.files, taken.gone, dict(taken.progress), taken.removed) == ((), (), {}, ())
    assert not (tmp_path / "none").exists()


def test_catalogue_and_files_are_read_at_one_moment(tmp_path: Path) -> None:
    """Later commits and uncommitted lines are not in it."""
    commit(tmp_path, addition(EVENTS[:3], [(4, "missing")]))
    with open_snapshot(tmp_path) as taken:
        commit(tmp_path, addition([(5, EVENTS[4][1])]))
        with next(tmp_path.glob(f"{DAY}/*")).open("ab") as file:
            file.write(b"not committed\n")
        assert [text for file in taken.files for text in file.read()] == LINES[:3]
        assert taken.progress == {(PRODUCER, 1): Progress(4, archived=3, missing=1, holes=0)}
        assert [row[2:5] for row in taken.removed] == [(4, 4, "missing")]


def test_files_that_go_are_still_read(tmp_path: Path) -> None:
    """A compaction in the middle neither hides a line nor shows one twice."""
    commit(tmp_path, addition(EVENTS[:2]))
    commit(tmp_path, addition(EVENTS[2:]))
    seal(tmp_path)
    reader = read(tmp_path)
    first = next(reader)
    assert [one.files for one in compact(tmp_path, "2027-01-01")] == [2]
    assert lines_of(tmp_path) == []
    assert [first, *reader] == LINES
    assert list(read(tmp_path)) == LINES


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Other folders can be read; reading its folder is an error."""
    commit(tmp_path, addition(EVENTS[:2]))
    commit(tmp_path, addition(EVENTS[2:]))
    gone = min(tmp_path.glob(f"{DAY}/*"))
    gone.unlink()
    with open_snapshot(tmp_path) as taken:
        assert taken.gone == (str(gone.relative_to(tmp_path)),)
        assert [text for file in taken.files for text in file.read()] == LINES[2:]
    with pytest.raises(ArchiveError, match="is in the catalogue, but not on the disk"):
        list(read(tmp_path))


def test_a_file_that_is_replaced_between_the_catalogue_and_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue is read again, and names the file that replaced it."""
    commit(tmp_path, addition(EVENTS))
    seal(tmp_path)
    real_open = os.open
    done: list[Path] = []

    def slow_open(path: Path, flags: int, *mode: int) -> int:
        if str(path).endswith("-000000.jsonl") and not done:
            done.append(path)
            assert [one.files for one in compact(tmp_path, "2027-01-01")] == [1]
        return real_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", slow_open)
    with open_files(tmp_path) as files:
        assert [file.is_parquet for file in files] == [True]
        assert list(files[0].read()) == LINES
    assert done


@pytest.mark.parametrize("length", [0, 7])
def test_a_compacted_file_that_was_cut_is_damaged(tmp_path: Path, length: int) -> None:
    """Its committed length is the whole file."""
    commit(tmp_path, addition(EVENTS))
    seal(tmp_path)
    list(compact(tmp_path, "2027-01-01"))
    (path,) = tmp_path.glob(f"{DAY}/*.parquet")
    os.truncate(path, length)
    with pytest.raises(ArchiveError, match=r"\.parquet is damaged"):
        list(read(tmp_path))


def test_a_compacted_file_with_other_lines_than_committed_is_damaged(tmp_path: Path) -> None:
    """Another file is there."""
    commit(tmp_path, addition(EVENTS))
    seal(tmp_path)
    list(compact(tmp_path, "2027-01-01"))
    catalogue = Catalogue(tmp_path)
    catalogue.database.sql.execute("UPDATE files SET lines = 4")
    catalogue.close()
    with pytest.raises(ArchiveError, match="is damaged"):
        list(read(tmp_path))


def test_every_file_is_closed_again(tmp_path: Path) -> None:
    """Also when a reader stops early."""
    commit(tmp_path, addition(EVENTS))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with closing(cast("Generator[bytes]", read(tmp_path))) as reader:
        next(reader)
    with open_snapshot(tmp_path):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
