"""The archive as it stood at one moment: what the catalogue said then, and the files it spoke of, open.

Invariant: the catalogue is read in one transaction, and every file it names is open before anything is handed out.
So a file that is compacted, rewritten or removed later still reads as it was, and each line is read once. Nothing
beyond a committed length is ever read.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, TypeVar

from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.archive.parquet_file import SUFFIX, fd_path, read_lines
from telemetry.archive.retention import RetiredRun
from telemetry.catalogue.catalogue_file import FILE_NAME
from telemetry.catalogue.commit import Progress, RemovedRun
from telemetry.errors import ArchiveError

# Between the transaction and the opening a file may go; then the catalogue names another one.
_ATTEMPTS: Final = 5

_Row: TypeAlias = tuple[str, int, int, int]
_T = TypeVar("_T")


class OpenFile(NamedTuple):
    """A file of the archive, open, and how much of it counts.

    Attributes:
        full_path: Where it was.
        path: The same relative to the archive, as the catalogue has it.
        size_bytes: Its committed length.
        lines: How many lines that is.
        sealed: Whether it never grows again.
        descriptor: The open file, the snapshot's to close.
    """

    full_path: Path
    path: str
    size_bytes: int
    lines: int
    sealed: bool
    descriptor: int

    @property
    def folder(self) -> str:
        """`date=YYYY-MM-DD`, or `deadletters`."""
        return self.path.partition("/")[0]

    @property
    def is_letters(self) -> bool:
        """Whether it holds dead letters and no events."""
        return self.folder == DEAD_LETTERS

    @property
    def is_parquet(self) -> bool:
        """Whether it has been compacted."""
        return self.path.endswith(SUFFIX)

    def read(self) -> Iterator[bytes]:
        """Read its lines.

        Yields:
            One line, line feed included.

        Raises:
            ArchiveError: It cannot be read, or is not what was committed.
        """
        if self.is_parquet:
            yield from self._read_parquet()
            return
        left_bytes = self.size_bytes
        try:
            with Path(fd_path(self.descriptor)).open("rb") as lines:
                while left_bytes > 0:
                    line = lines.readline()
                    left_bytes -= len(line)
                    if left_bytes < 0 or not line.endswith(b"\n"):
                        raise self._damaged()
                    yield line
        except OSError as error:
            raise ArchiveError(f"{self.full_path} cannot be read: {error.strerror}") from None

    def _read_parquet(self) -> Iterator[bytes]:
        if os.fstat(self.descriptor).st_size != self.size_bytes:
            raise self._damaged()
        count = 0
        for line in read_lines(self.full_path, self.descriptor):
            count += 1
            yield line
        if count != self.lines:
            raise self._damaged()

    def _damaged(self) -> ArchiveError:
        return ArchiveError(f"{self.full_path} is damaged before its committed length of {self.size_bytes} bytes")


@dataclass(frozen=True, slots=True)
class ArchiveSnapshot:
    """What the catalogue said.

    Attributes:
        files: All files, in the order in which lines are read.
        gone: Paths of files that are not on the disk.
        progress: The account of each (producer, epoch).
        removed: The numbers that are not archived lines.
        settled: What was done about dead letters, by letter.
        retired: The numbers of archived lines that retention removed.
    """

    files: tuple[OpenFile, ...] = ()
    gone: tuple[str, ...] = ()
    progress: Mapping[tuple[str, int], Progress] = field(default_factory=dict)
    removed: tuple[RemovedRun, ...] = ()
    settled: Mapping[str, str] = field(default_factory=dict)
    retired: tuple[RetiredRun, ...] = ()


@contextmanager
def open_files(root: Path, folder: str | None = None) -> Iterator[list[OpenFile]]:
    """Open the files of an archive.

    Args:
        root: The archive's directory.
        folder: Only those of `date=YYYY-MM-DD`, or of `deadletters`; None for all.

    Yields:
        The files, in the order in which lines are read; none for an archive without a commit.

    Raises:
        ArchiveError: The catalogue cannot be read, or a file that it names is not there.
    """
    with _taken(root, f"{folder}/" if folder else "", _no_account) as (files, gone, _):
        if gone:
            raise ArchiveError(f"{root / gone[0]} is in the catalogue, but not on the disk")
        yield files


@contextmanager
def open_snapshot(root: Path) -> Iterator[ArchiveSnapshot]:
    """Take everything that is to be known of an archive at one moment.

    Args:
        root: The archive's directory.

    Yields:
        The snapshot, whose files are open until the end; an empty one for an archive without a commit.

    Raises:
        ArchiveError: The catalogue cannot be read or is of an older version.
    """
    with _taken(root, "", _account) as (files, gone, told):
        yield replace(told or ArchiveSnapshot(), files=tuple(files), gone=tuple(gone))


def _no_account(_db: sqlite3.Connection) -> None:
    return None


def _account(db: sqlite3.Connection) -> ArchiveSnapshot:
    progress = db.execute(
        "SELECT producer, epoch, seq, archived, deduplicated, dead_lettered, erased, missing, holes FROM progress"
    ).fetchall()
    removed = db.execute("SELECT producer, epoch, first_seq, last_seq, why, received_at FROM removed").fetchall()
    settled = db.execute("SELECT letter_id, settled FROM letters").fetchall()
    # A catalogue that no consumer of today has opened yet has none.
    (has_retired,) = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'retired'").fetchone()
    retired = db.execute("SELECT producer, epoch, first_seq, last_seq, day FROM retired") if has_retired else ()
    return ArchiveSnapshot(
        progress={(row[0], row[1]): Progress(*row[2:]) for row in progress},
        removed=tuple(map(RemovedRun._make, removed)),
        settled=dict(settled),
        retired=tuple(map(RetiredRun._make, retired)),
    )


@contextmanager
def _taken(
    root: Path, prefix: str, account: Callable[[sqlite3.Connection], _T]
) -> Iterator[tuple[list[OpenFile], list[str], _T | None]]:
    files: list[OpenFile] = []
    try:
        for _ in range(_ATTEMPTS):
            _close(files)
            rows, told = _ask(root, account)
            gone = _open(root, [row for row in rows if row[0].startswith(prefix)], files)
            if not gone:
                break
        yield files, gone, told
    finally:
        _close(files)


def _ask(root: Path, account: Callable[[sqlite3.Connection], _T]) -> tuple[list[_Row], _T | None]:
    catalogue = root / FILE_NAME
    if not catalogue.is_file():
        return [], None
    try:
        with closing(sqlite3.connect(f"{catalogue.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute("BEGIN")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                # A consumer is just making it.
                return [], None
            if version == 1 and account is not _no_account:
                raise ArchiveError(f"the archive in {root} is of an older version; a consumer that starts upgrades it")
            sealed = "sealed" if version > 1 else "0"
            rows = db.execute(f"SELECT path, bytes, lines, {sealed} FROM files ORDER BY path").fetchall()  # noqa: S608 - one of two
            return rows, account(db)
    except sqlite3.Error as error:
        raise ArchiveError(f"the catalogue in {root} cannot be read: {error}") from None


def _open(root: Path, rows: list[_Row], files: list[OpenFile]) -> list[str]:
    """Open what the catalogue names; returns the paths of files that are not there."""
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
                    f"the archive in {root} has more files than this process may open; compact it, or raise `ulimit -n`"
                ) from None
            raise ArchiveError(f"{root / path} cannot be read: {error.strerror}") from None
        files.append(OpenFile(root / path, path, size_bytes, lines, bool(sealed), descriptor))
    return gone


def _close(files: list[OpenFile]) -> None:
    while files:
        os.close(files.pop().descriptor)
