"""Reading the archive while it is being written.

Invariant: a reader sees committed lines only, each once; it stops at the committed length of every file,
whatever lies beyond it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import NamedTuple

from telemetry.catalogue import FILE_NAME
from telemetry.errors import ArchiveError
from telemetry.parts import DEAD_LETTERS


class CommittedFile(NamedTuple):
    """A file of the archive, and how much of it counts."""

    path: Path
    size_bytes: int
    lines: int


def committed_files(root: Path, *, dead_letters: bool = False) -> list[CommittedFile]:
    """List what is archived.

    Args:
        root: The archive's directory.
        dead_letters: List the dead letters instead of the events.

    Returns:
        The files, by date and then in the order they were begun; empty for an archive without a commit.

    Raises:
        ArchiveError: The catalogue cannot be read.
    """
    catalogue = root / FILE_NAME
    if not catalogue.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{catalogue.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                # A consumer is just making it.
                return []
            rows = db.execute("SELECT path, bytes, lines FROM files ORDER BY path").fetchall()
    except sqlite3.Error as error:
        raise ArchiveError(f"the catalogue in {root} cannot be read: {error}") from None
    return [
        CommittedFile(root / path, size_bytes, lines)
        for path, size_bytes, lines in rows
        if path.startswith(f"{DEAD_LETTERS}/") == dead_letters
    ]


def read(
    root: Path, *, first: date | None = None, last: date | None = None, dead_letters: bool = False
) -> Iterator[bytes]:
    """Read archived lines, as their producers wrote them.

    Args:
        root: The archive's directory.
        first: The first UTC date of `received_at` wanted, or None for the oldest.
        last: The last one wanted, or None for the newest.
        dead_letters: Read the dead letters instead; they have no date.

    Yields:
        One line, line feed included.

    Raises:
        ArchiveError: The catalogue or a file cannot be read, or a file is shorter than committed.
    """
    for file in committed_files(root, dead_letters=dead_letters):
        if not dead_letters and not _in_range(file.path.parent.name, first, last):
            continue
        left_bytes = file.size_bytes
        try:
            with file.path.open("rb") as lines:
                while left_bytes > 0:
                    line = lines.readline()
                    left_bytes -= len(line)
                    if left_bytes < 0 or not line.endswith(b"\n"):
                        raise ArchiveError(
                            f"{file.path} is damaged before its committed length of {file.size_bytes} bytes"
                        )
                    yield line
        except OSError as error:
            raise ArchiveError(f"{file.path} cannot be read: {error.strerror}") from None


def _in_range(folder: str, first: date | None, last: date | None) -> bool:
    day = folder.removeprefix("date=")
    return (first is None or first.isoformat() <= day) and (last is None or day <= last.isoformat())
