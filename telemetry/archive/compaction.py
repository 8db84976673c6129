"""Compaction: the complete files of a past date become one Parquet file.

Invariant: the new file is written beside the old ones, synced and read back, and counts only once one transaction
replaces their rows with its own, which requires that those rows are unchanged and sealed; then the old files are
removed. A crash leaves a valid archive, and remains that the next compaction removes. One compaction runs at a time; of
a consumer, an erasure and a compaction the first to replace a file wins.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from telemetry.archive.archive_files import DATE_PREFIX, REWRITTEN, date_of
from telemetry.archive.archive_lock import COMPACTION_LOCK, try_lock
from telemetry.archive.archive_snapshot import OpenFile, open_files
from telemetry.archive.parquet_file import SUFFIX, read_lines, write_lines
from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import FILE_NAME
from telemetry.catalogue.commit import FileLength
from telemetry.errors import ArchiveError
from telemetry.ids import uuid7
from telemetry.wal.disk import sync_directory

_PREFIX: Final = "compact-"
_PART: Final = re.compile(r"part-(\d+)-(\d+)\.jsonl")
_EXTRA_BYTES: Final = 64 * 1024 * 1024
_REPORT_EVERY_LINES: Final = 50_000

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, lines done, lines in total)."""


class Compacted(NamedTuple):
    """The compaction of a date.

    Attributes:
        day: The UTC date, YYYY-MM-DD.
        files: How many files were joined; 0 if there was nothing to do.
        lines: How many lines they hold.
        before_bytes: Their size.
        after_bytes: The size of the Parquet file.
        open_files: Files that may still grow and were left alone.
    """

    day: str
    files: int
    lines: int
    before_bytes: int
    after_bytes: int
    open_files: int


def compact(root: Path, before: str, report: Report | None = None) -> Iterator[Compacted]:
    """Compact every date before another one.

    Args:
        before: The first UTC date, YYYY-MM-DD, that is not compacted.

    Yields:
        One result per date, oldest first.

    Raises:
        ArchiveError: Another compaction runs, DuckDB is missing, or a file cannot be read or written; the date at
            which it happened is unchanged.
    """
    if not (root / FILE_NAME).is_file():
        return
    try:
        with try_lock(root / COMPACTION_LOCK) as locked, closing(Catalogue(root)) as catalogue:
            if not locked:
                raise ArchiveError(f"Another compaction of {root} is running.")
            _remove_remains(root, catalogue)
            days = {date_of(path) for path in catalogue.files() if path.startswith(DATE_PREFIX)}
            for day in sorted(day for day in days if day < before):
                yield _compact_day(root, catalogue, day, report or (lambda _stage, _done, _total: None))
    except OSError as error:
        raise ArchiveError(f"The archive {root} cannot be written: {error.strerror}.") from None


def _compact_day(root: Path, catalogue: Catalogue, day: str, report: Report) -> Compacted:
    folder = f"{DATE_PREFIX}{day}"
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
            _replace_rows(catalogue, sealed, path, FileLength(size_bytes, total))
        except BaseException as error:
            with suppress(OSError):
                full.unlink()
            if isinstance(error, OSError):
                raise ArchiveError(f"{day} cannot be compacted in {root}: {error.strerror}.") from None
            raise
        for file in sealed:
            file.full_path.unlink(missing_ok=True)
        sync_directory(full.parent)
        return Compacted(day, len(sealed), total, before_bytes, size_bytes, growing)


def _write_and_compare(path: Path, files: list[OpenFile], report: Callable[[str, int], None]) -> int:
    """Write the lines of several files into a new one, and read it back; returns its size in bytes."""
    _require_room(path.parent, files)
    source, copy = _Digest(), _Digest()
    lines = (line for file in files for line in file.read())
    write_lines(path, source.watch(lines, lambda done: report("compacting", done)))
    sync_directory(path.parent)
    for _ in copy.watch(read_lines(path), lambda done: report("comparing", done)):
        pass
    if copy.result() != source.result() or source.lines != sum(file.lines for file in files):
        raise ArchiveError(f"{path} does not read back as it was written; nothing was changed.")
    return path.stat().st_size


class _Digest:
    """The number and the hash of the lines that pass through, in order."""

    def __init__(self) -> None:
        self.lines = 0
        self._hash = hashlib.sha256()

    def watch(self, lines: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
        for line in lines:
            self._hash.update(line)
            self.lines += 1
            if self.lines % _REPORT_EVERY_LINES == 0:
                report(self.lines)
            yield line

    def result(self) -> tuple[int, bytes]:
        return self.lines, self._hash.digest()


def _require_room(directory: Path, files: Iterable[OpenFile]) -> None:
    """Refuse before the disk is full, which would stop the consumer too."""
    status = os.statvfs(directory)
    free_bytes = status.f_bavail * status.f_frsize
    # The lines in plain text, and the new file, which is smaller.
    needed_bytes = 2 * sum(file.size_bytes * (10 if file.is_parquet else 1) for file in files) + _EXTRA_BYTES
    if free_bytes < needed_bytes:
        raise ArchiveError(
            f"Compacting in {directory} needs {needed_bytes >> 20} MiB for a while; {free_bytes >> 20} MiB are free."
        )


def _replace_rows(catalogue: Catalogue, old: list[OpenFile], path: str, length: FileLength) -> None:
    """Replace the rows of some files with one, if they are unchanged since they were read."""
    database = catalogue.database
    with database.transaction():
        rows = database.sql.execute("SELECT path, bytes, lines FROM files WHERE sealed = 1").fetchall()
        if not {(file.path, file.size_bytes, file.lines) for file in old} <= set(rows):
            raise ArchiveError(f"Another process replaced files beside {path} meanwhile; compact again.")
        database.sql.executemany("DELETE FROM files WHERE path = ?", [(file.path,) for file in old])
        database.sql.execute("INSERT INTO files (path, bytes, lines, sealed) VALUES (?, ?, ?, 1)", (path, *length))


def _remove_remains(root: Path, catalogue: Catalogue) -> None:
    """Remove the remains of interrupted compactions: new files that never counted, old ones that no longer do."""
    known = catalogue.files()
    newest = (catalogue.lease.read().epoch, 0)
    for path in known:
        newest = max(newest, _lease_and_rotation(Path(path).name) or newest)
    for file in root.glob(f"{DATE_PREFIX}*/*"):
        if str(file.relative_to(root)) in known:
            continue
        written = _lease_and_rotation(file.name)
        is_compacted = file.name.startswith(_PREFIX) and REWRITTEN not in file.name
        # A part of the present rotation may be about to count.
        if is_compacted or (written is not None and written < newest):
            file.unlink(missing_ok=True)


def _lease_and_rotation(name: str) -> tuple[int, int] | None:
    match = _PART.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))
