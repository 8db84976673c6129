import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from telemetry.archive.archive import Archive
from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.archive.archive_reader import read
from telemetry.archive.dead_letters import DeadLetter, encode_letter
from telemetry.archive.parquet_file import read_lines, write_lines
from telemetry.archive.uncommitted_files import remove_uncommitted
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.commit import CommitContent, ErasureRequest, FileLength, Progress
from telemetry.erasure.erasure_requests import replace_file
from telemetry.erasure.line_matcher import LineMatcher
from telemetry.erasure.rewriting import contains_users, rewrite
from tests.support.archives.erasures import AFTER, BEFORE, DAY, REQUESTED, USER, line


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path)
    await archive.acquire(1.0)
    yield archive
    await archive.close()


MATCHER = LineMatcher([ErasureRequest("erase-000001", USER, "-", REQUESTED)])


async def _commit(archive: Archive, *lines: bytes, folder: str = DAY) -> None:
    seq = archive.watermarks["p"].seq + len(lines) if archive.watermarks else len(lines)
    added = CommitContent({folder: list(lines)}, {("p", 1): Progress(seq, archived=len(lines))})
    await archive.commit(added)


async def test_a_crash_before_the_transaction_leaves_the_old_file(tmp_path: Path, archive: Archive) -> None:
    """The new file does not count and is removed, by the next lease holder or the next round."""
    await _commit(archive, line(1, USER), line(2, "43"))
    await archive.seal()
    ((path, length),) = (await archive.sealed_files()).items()
    for clean_up in ("round", "lease"):
        replacement = rewrite(tmp_path, 1, path, length, MATCHER)
        assert replacement is not None
        new = tmp_path / replacement.new[0]
        assert new.read_bytes() == line(2, "43")
        assert list(read(tmp_path)) == [line(1, USER), line(2, "43")]
        if clean_up == "round":
            assert remove_uncommitted(tmp_path, 1, archive.part)
        else:
            await archive.release()
            await archive.acquire(1.0)
        assert not new.exists()
    assert list(read(tmp_path)) == [line(1, USER), line(2, "43")]


async def test_a_crash_after_the_transaction_leaves_the_new_file(tmp_path: Path, archive: Archive) -> None:
    """The old one no longer counts, and is removed."""
    await _commit(archive, line(1, USER), line(2, "43"))
    await archive.seal()
    ((path, length),) = (await archive.sealed_files()).items()
    replacement = rewrite(tmp_path, 1, path, length, MATCHER)
    assert replacement is not None
    assert await archive.write_catalogue(replace_file, replacement)
    assert not await archive.write_catalogue(replace_file, replacement)
    assert list(read(tmp_path)) == [line(2, "43")]
    await _commit(archive, line(3, "43"))
    assert (tmp_path / path).exists()
    compacting = os.open(tmp_path / "compact.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(compacting, fcntl.LOCK_EX)
    assert not remove_uncommitted(tmp_path, 1, archive.part)
    os.close(compacting)
    later = (archive.part.replace("000001.", "000002."), "part-00000002-000000.jsonl", "x.rewritten-00000002-1.parquet")
    others = [tmp_path / DAY / name for name in later]
    for other in [*others, tmp_path / DAY / "compact-1.parquet"]:
        other.touch()
    assert remove_uncommitted(tmp_path, 1, archive.part)
    assert all(other.exists() for other in others)
    assert not (tmp_path / DAY / "compact-1.parquet").exists()
    assert not (tmp_path / path).exists()
    assert list(read(tmp_path)) == [line(2, "43"), line(3, "43")]


async def test_a_file_that_was_replaced_meanwhile_is_not_replaced_again(tmp_path: Path, archive: Archive) -> None:
    """Compaction and erasure may meet; the second one changes nothing."""
    await _commit(archive, line(1, USER), line(2, "43"))
    await archive.seal()
    ((path, length),) = (await archive.sealed_files()).items()
    replacement = rewrite(tmp_path, 1, path, length, MATCHER)
    assert replacement is not None
    other = replacement.new[1]
    catalogue = Catalogue(tmp_path)
    catalogue.database.sql.execute("UPDATE files SET path = 'date=2026-11-21/compact-1.parquet'")
    assert not await archive.write_catalogue(replace_file, replacement)
    assert catalogue.files() == {"date=2026-11-21/compact-1.parquet": length}
    assert catalogue.database.sql.execute("SELECT archived FROM progress").fetchall() == [(2,)]
    assert other == FileLength(len(line(2, "43")), 1)
    catalogue.close()


async def test_a_compacted_file_is_rewritten_as_such(tmp_path: Path, archive: Archive) -> None:
    """Parquet stays Parquet, with the exact bytes of every other line."""
    lines = [line(1, USER), line(2, "43"), line(3, USER, AFTER)]
    (tmp_path / DAY).mkdir()
    path = f"{DAY}/compact-1.parquet"
    write_lines(tmp_path / path, lines)
    length = FileLength((tmp_path / path).stat().st_size, 3)
    replacement = rewrite(tmp_path, 7, path, length, MATCHER)
    assert replacement is not None
    assert replacement.new[0] == f"{DAY}/compact-1.rewritten-00000007-1.parquet"
    assert list(read_lines(tmp_path / replacement.new[0])) == lines[1:]
    assert replacement.new[1] == FileLength((tmp_path / replacement.new[0]).stat().st_size, 2)
    again = rewrite(tmp_path, 8, *replacement.new, matcher=MATCHER)
    assert again is None
    assert sorted(file.name for file in (tmp_path / DAY).iterdir()) == [
        "compact-1.parquet",
        "compact-1.rewritten-00000007-1.parquet",
    ]


async def test_a_backslash_or_a_user_who_came_back_causes_no_writing(tmp_path: Path) -> None:
    """Only a line that is to go makes a new file, in plain text and compacted."""
    lines = [line(1, 'a\\b"'), line(2, USER, AFTER), line(3, "43")]
    (tmp_path / DAY).mkdir()
    plain, packed = f"{DAY}/part-00000001-000000.jsonl", f"{DAY}/compact-1.parquet"
    (tmp_path / plain).write_bytes(b"".join(lines))
    write_lines(tmp_path / packed, lines)
    for path in (plain, packed):
        length = FileLength((tmp_path / path).stat().st_size, 3)
        assert not contains_users(tmp_path, path, length, MATCHER)
        assert rewrite(tmp_path, 1, path, length, MATCHER) is None
        assert contains_users(tmp_path, path, length, LineMatcher([ErasureRequest("e", "43", "-", REQUESTED)]))
    assert len(list((tmp_path / DAY).iterdir())) == 2


def test_a_file_of_many_megabytes_is_searched_across_its_chunks(tmp_path: Path) -> None:
    """An id that lies across two reads is found, and one beyond the committed length is not."""
    user = "u" * 100
    matcher = LineMatcher([ErasureRequest("e", user, "-", REQUESTED)])
    hit, miss = line(2, user, served=True), line(1, "43", served=True)
    (tmp_path / DAY).mkdir()
    path = f"{DAY}/part-00000001-000000.jsonl"
    padding = b"x" * (1024 * 1024 - hit.index(b"uuuu") - 50 - 1) + b"\n"
    (tmp_path / path).write_bytes(padding + hit + miss)
    replacement = rewrite(tmp_path, 1, path, FileLength(len(padding + hit + miss), 3), matcher)
    assert replacement is not None
    assert (tmp_path / replacement.new[0]).read_bytes() == padding + miss
    assert rewrite(tmp_path, 1, path, FileLength(len(padding), 1), matcher) is None
    assert [file.name for file in (tmp_path / DAY).iterdir()].count("part-00000001-000000.jsonl") == 1


def test_a_dead_letter_of_a_whole_entry_is_erased_if_any_line_in_it_matches(tmp_path: Path) -> None:
    """Readable or not, as text or not; its numbers are cut out of the run of dead letters."""
    letter = DeadLetter("l-1", BEFORE, "p", "1-9", 5, None, "checksum", 1, b"")

    def lettered(name: str, data: bytes) -> bytes:
        return encode_letter(DeadLetter(name, BEFORE, "p", "1-9", 5, None, "checksum", 1, data))

    kept = [lettered("l-1", line(5, "43")), lettered("l-2", b"\xff" + line(5, "43")), b"{not a letter}\n"]
    gone = [lettered("l-3", line(5, "43") + line(6, USER)), lettered("l-4", b"\xff" + line(6, USER))]
    (tmp_path / DEAD_LETTERS).mkdir()
    path = f"{DEAD_LETTERS}/part-00000001-000000.jsonl"
    content = b"".join([*kept, *gone])
    (tmp_path / path).write_bytes(content)
    replacement = rewrite(tmp_path, 1, path, FileLength(len(content), 5), MATCHER)
    assert replacement is not None
    assert (tmp_path / replacement.new[0]).read_bytes() == b"".join(kept)
    assert letter.seqs == (1, range(5, 10))
    assert replacement.dead_letters
