"""Compacting: the complete files of a past date become one Parquet file.

Invariants:

- The old files are only read. The new one is written beside them, synced and read back, line by line, and means
  nothing until one transaction puts its row in the place of theirs, which happens only while those rows are as they
  were read and sealed. Then the old files go. A crash anywhere leaves one valid archive, and what it leaves beside it
  the next compaction removes.
- One compaction at a time; a consumer, an erase or a reader may be at work meanwhile. Whoever replaced a file
  first wins.

    read -> written, synced -> compared -> [catalogue] -> old files removed
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from telemetry.archive.archive_files import REWRITTEN
from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.archive.parquet_file import SUFFIX, read_lines, write_lines
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import FILE_NAME
from telemetry.catalogue.commit import FileLength
from telemetry.errors import ArchiveError
from telemetry.ids import uuid7
from telemetry.wal.disk import sync_directory

_LOCK: Final = "compact.lock"
_PREFIX: Final = "compact-"
_PART: Final = re.compile(r"part-(\d+)-(\d+)\.jsonl")
_DATE: Final = "date="
_EXTRA_BYTES: Final = 64 * 1024 * 1024
_REPORT_EVERY_LINES: Final = 50_000


class Compacted(NamedTuple):
    """What became of a date's files.

    Attributes:
        day: The UTC date, YYYY-MM-DD.
        files: How many files were put together; 0 if there was nothing to do.
        lines: How many lines they hold.
        before_bytes: What they took.
        after_bytes: What the Parquet file takes.
        open_files: Files that may still grow and were left alone.
    """

    day: str
    files: int
    lines: int
    before_bytes: int
    after_bytes: int
    open_files: int


class _Fingerprint(NamedTuple):
    lines: int
    digest: bytes


def compact(root: Path, before: str, report: Callable[[str, int, int], None] | None = None) -> Iterator[Compacted]:
    """Compact every date before another one.

    Args:
        root: The archive's directory.
        before: A UTC date, YYYY-MM-DD, that is not compacted any more.
        report: Told `(stage, done, total)` in lines.

    Yields:
        What became of each date, oldest first.

    Raises:
        ArchiveError: Another compaction runs, DuckDB is missing, or a file cannot be read or written; the date that
            it happened at is as it was.
    """
    if not (root / FILE_NAME).is_file():
        return
    with _alone(root), closing(Catalogue(root)) as catalogue:
        _clean(root, catalogue)
        days = {path[len(_DATE) :].partition("/")[0] for path in catalogue.files() if path.startswith(_DATE)}
        for day in sorted(day for day in days if day < before):
            yield _compact_day(root, catalogue, day, report or (lambda _stage, _done, _total: None))


def _compact_day(root: Path, catalogue: Catalogue, day: str, report: Callable[[str, int, int], None]) -> Compacted:
    folder = f"{_DATE}{day}"
    with open_files(root, folder) as files:
        sealed = [file for file in files if file.sealed]
        growing = len(files) - len(sealed)
        if not sealed or (len(sealed) == 1 and sealed[0].is_parquet):
            return Compacted(day, 0, 0, 0, 0, growing)
        total = sum(file.lines for file in sealed)
        before_bytes = sum(file.size_bytes for file in sealed)
        path = f"{folder}/{_PREFIX}{uuid7()}{SUFFIX}"
        full = root / path
        try:
            size_bytes = _write_and_compare(full, sealed, lambda stage, done: report(f"{stage} {day}", done, total))
            _replace(catalogue, sealed, path, FileLength(size_bytes, total))
        except BaseException as error:
            with suppress(OSError):
                full.unlink()
            if isinstance(error, OSError):
                raise ArchiveError(f"{day} cannot be compacted in {root}: {error.strerror}") from None
            raise
        for file in sealed:
            file.full_path.unlink(missing_ok=True)
        sync_directory(full.parent)
        return Compacted(day, len(sealed), total, before_bytes, size_bytes, growing)


def _write_and_compare(path: Path, files: list[OpenFile], report: Callable[[str, int], None]) -> int:
    """Write the lines of several files into a new one, and read it back; returns its size in bytes."""
    _require_room(path.parent, files)
    source, copy = _Digest(), _Digest()
    write_lines(path, source.watch(_all_lines(files), lambda done: report("compacting", done)))
    sync_directory(path.parent)
    for _ in copy.watch(read_lines(path), lambda done: report("comparing", done)):
        pass
    if copy.result() != source.result() or source.result().lines != sum(file.lines for file in files):
        raise ArchiveError(f"{path} does not read back as it was written; nothing was changed")
    return path.stat().st_size


class _Digest:
    """How many lines went by, and which, in order."""

    def __init__(self) -> None:
        self._lines = 0
        self._hash = hashlib.sha256()

    def watch(self, lines: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
        for line in lines:
            self._hash.update(line)
            self._lines += 1
            if self._lines % _REPORT_EVERY_LINES == 0:
                report(self._lines)
            yield line

    def result(self) -> _Fingerprint:
        return _Fingerprint(self._lines, self._hash.digest())


def _all_lines(files: Iterable[OpenFile]) -> Iterator[bytes]:
    for file in files:
        yield from file.read()


def _require_room(directory: Path, files: Iterable[OpenFile]) -> None:
    """Refuse early: a disk that is full stops the consumer, too."""
    status = os.statvfs(directory)
    free_bytes = status.f_bavail * status.f_frsize
    # The lines in plain text, and the new file, which is smaller.
    wanted_bytes = 2 * sum(file.size_bytes * (10 if file.is_parquet else 1) for file in files) + _EXTRA_BYTES
    if free_bytes < wanted_bytes:
        raise ArchiveError(
            f"compacting in {directory} needs {wanted_bytes >> 20} MiB for a while, and {free_bytes >> 20} MiB are free"
        )


def _replace(catalogue: Catalogue, old: list[OpenFile], path: str, length: FileLength) -> None:
    """Put one row in the place of others, if they are as they were read."""
    database = catalogue.database
    with database.transaction():
        rows = database.sql.execute("SELECT path, bytes, lines FROM files WHERE sealed = 1").fetchall()
        if not {(file.path, file.size_bytes, file.lines) for file in old} <= set(rows):
            raise ArchiveError(f"files beside {path} were replaced by somebody else meanwhile; compact again")
        database.sql.executemany("DELETE FROM files WHERE path = ?", [(file.path,) for file in old])
        database.sql.execute("INSERT INTO files (path, bytes, lines, sealed) VALUES (?, ?, ?, 1)", (path, *length))


def _clean(root: Path, catalogue: Catalogue) -> None:
    """Remove what compactions that did not end left: new files that never counted, old ones that count no more."""
    known = catalogue.files()
    newest = (catalogue.lease().epoch, 0)
    for path in known:
        newest = max(newest, _turn(Path(path).name) or newest)
    for file in root.glob(f"{_DATE}*/*"):
        if str(file.relative_to(root)) in known:
            continue
        turn = _turn(file.name)
        ours = file.name.startswith(_PREFIX) and REWRITTEN not in file.name
        # A part of the present turn may be about to count.
        if ours or (turn is not None and turn < newest):
            file.unlink(missing_ok=True)


def _turn(name: str) -> tuple[int, int] | None:
    match = _PART.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    try:
        descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ArchiveError(f"the archive {root} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ArchiveError(f"another compaction of {root} is running") from None
    else:
        yield
    finally:
        os.close(descriptor)
