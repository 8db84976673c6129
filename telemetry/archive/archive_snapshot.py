"""The archive at one moment: the catalogue's rows, and the files it names, open.

Invariant: the catalogue is read in one transaction, and every file it names is open before anything is returned. So a
file that is compacted, rewritten or removed later still reads as it was, and each line is read once. Nothing beyond a
committed length is read.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from telemetry.archive.archive_files import DEAD_LETTERS, date_of
from telemetry.archive.parquet_file import SUFFIX, fd_path, read_lines
from telemetry.archive.retention import RetiredRun
from telemetry.catalogue.catalogue_file import read_only
from telemetry.catalogue.commit import Progress, RemovedRun
from telemetry.errors import ArchiveError

# Between the transaction and the opening a file may be replaced; then the catalogue names another one.
_ATTEMPTS: Final = 5

_Row: TypeAlias = tuple[str, int, int, int]


class OpenFile(NamedTuple):
    """An open file of the archive.

    Attributes:
        full_path: Its path when it was opened.
        path: The same relative to the archive, as in the catalogue.
        size_bytes: Its committed length.
        lines: Its committed length in lines.
        sealed: Whether it never grows again.
        descriptor: Closed by the snapshot.
    """

    full_path: Path
    path: str
    size_bytes: int
    lines: int
    sealed: bool
    descriptor: int

    @property
    def day(self) -> str:
        """Its UTC date, YYYY-MM-DD, or `deadletters`."""
        return date_of(self.path)

    @property
    def is_dead_letters(self) -> bool:
        """Whether it holds dead letters and no events."""
        return self.day == DEAD_LETTERS

    @property
    def is_parquet(self) -> bool:
        """Whether it has been compacted."""
        return self.path.endswith(SUFFIX)

    def read(self, from_bytes: int = 0) -> Iterator[bytes]:
        """Read its lines, line feeds included; of a file that is not compacted, those from an offset on."""
        if self.is_parquet:
            yield from self._read_parquet()
            return
        left_bytes = self.size_bytes - from_bytes
        try:
            with Path(fd_path(self.descriptor)).open("rb") as lines:
                lines.seek(from_bytes)
                while left_bytes > 0:
                    line = lines.readline()
                    left_bytes -= len(line)
                    if left_bytes < 0 or not line.endswith(b"\n"):
                        raise self.damage()
                    yield line
        except OSError as error:
            raise ArchiveError(f"{self.full_path} cannot be read: {error.strerror}.") from None

    def damage(self) -> ArchiveError:
        """Return the error of a file that is not what was committed."""
        return ArchiveError(f"{self.full_path} is damaged before its committed length of {self.size_bytes} bytes.")

    def _read_parquet(self) -> Iterator[bytes]:
        if os.fstat(self.descriptor).st_size != self.size_bytes:
            raise self.damage()
        count = 0
        for line in read_lines(self.full_path, self.descriptor):
            count += 1
            yield line
        if count != self.lines:
            raise self.damage()


@dataclass(frozen=True, slots=True)
class ArchiveSnapshot:
    """The catalogue's rows at one moment.

    Attributes:
        files: All files, in the order in which lines are read.
        gone: Paths of files that are not on the disk.
        progress: The counts of each (producer, epoch).
        removed: The sequence numbers that are not archived lines.
        letter_states: The state of dead letters that are not open, by letter.
        retired: The sequence numbers of archived lines that retention removed.
    """

    files: tuple[OpenFile, ...] = ()
    gone: tuple[str, ...] = ()
    progress: Mapping[tuple[str, int], Progress] = field(default_factory=dict)
    removed: tuple[RemovedRun, ...] = ()
    letter_states: Mapping[str, str] = field(default_factory=dict)
    retired: tuple[RetiredRun, ...] = ()


@contextmanager
def open_files(root: Path, folder: str | None = None) -> Iterator[list[OpenFile]]:
    """Open the files of an archive.

    Args:
        folder: Only those of `date=YYYY-MM-DD`, or of `deadletters`; None for all.

    Yields:
        The files, in the order in which lines are read.
    """
    with _opened(root, f"{folder}/" if folder else "", files_only=True) as snapshot:
        if snapshot.gone:
            raise ArchiveError(f"{root / snapshot.gone[0]} is in the catalogue, but not on the disk.")
        yield list(snapshot.files)


@contextmanager
def open_snapshot(root: Path) -> Iterator[ArchiveSnapshot]:
    """Read an archive's catalogue and open its files.

    Yields:
        The snapshot; its files are closed at the end. It is empty for an archive without a commit.
    """
    with _opened(root, "", files_only=False) as snapshot:
        yield snapshot


@contextmanager
def _opened(root: Path, prefix: str, *, files_only: bool) -> Iterator[ArchiveSnapshot]:
    files: list[OpenFile] = []
    try:
        for _ in range(_ATTEMPTS):
            _close(files)
            file_rows, snapshot = _read_rows(root, files_only=files_only)
            gone = _open(root, [row for row in file_rows if row[0].startswith(prefix)], files)
            if not gone:
                break
        yield replace(snapshot, files=tuple(files), gone=tuple(gone))
    finally:
        _close(files)


def _read_rows(root: Path, *, files_only: bool) -> tuple[list[_Row], ArchiveSnapshot]:
    with read_only(root) as opened:
        if opened is None:
            return [], ArchiveSnapshot()
        db, version = opened
        if version == 1 and not files_only:
            raise ArchiveError(f"The archive in {root} is of an older version; a consumer that starts upgrades it.")
        sealed = "sealed" if version > 1 else "0"
        rows = db.execute(f"SELECT path, bytes, lines, {sealed} FROM files ORDER BY path").fetchall()  # noqa: S608 - one of two
        return rows, ArchiveSnapshot() if files_only else _other_rows(db)


def _other_rows(db: sqlite3.Connection) -> ArchiveSnapshot:
    progress = db.execute(
        "SELECT producer, epoch, seq, archived, deduplicated, dead_lettered, erased, missing, holes FROM progress"
    ).fetchall()
    removed = db.execute("SELECT producer, epoch, first_seq, last_seq, why, received_at FROM removed").fetchall()
    letter_states = db.execute("SELECT letter_id, settled FROM letters").fetchall()
    # Missing until a consumer of this version has opened the catalogue.
    (has_retired,) = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'retired'").fetchone()
    retired = db.execute("SELECT producer, epoch, first_seq, last_seq, day FROM retired") if has_retired else ()
    return ArchiveSnapshot(
        progress={(row[0], row[1]): Progress(*row[2:]) for row in progress},
        removed=tuple(map(RemovedRun._make, removed)),
        letter_states=dict(letter_states),
        retired=tuple(map(RetiredRun._make, retired)),
    )


def _open(root: Path, rows: list[_Row], files: list[OpenFile]) -> list[str]:
    """Open the files of some rows; returns the paths of those that are missing."""
    gone = []
    for path, size_bytes, lines, sealed in rows:
        try:
            descriptor = os.open(root / path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            gone.append(path)
            continue
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise ArchiveError(
                    f"The archive in {root} has more files than a process may open; compact it, or raise `ulimit -n`."
                ) from None
            raise ArchiveError(f"{root / path} cannot be read: {error.strerror}.") from None
        files.append(OpenFile(root / path, path, size_bytes, lines, bool(sealed), descriptor))
    return gone


def _close(files: list[OpenFile]) -> None:
    while files:
        os.close(files.pop().descriptor)
