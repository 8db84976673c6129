"""Reading the archive while it is being written.

Invariant: a reader sees committed lines only, each once; it stops at the committed length of every file,
whatever lies beyond it. A file that is compacted or rewritten meanwhile makes no difference.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from telemetry.archive.archive_files import DEAD_LETTERS
from telemetry.archive.archive_snapshot import open_files
from telemetry.archive.schema_1 import expand
from telemetry.catalogue.catalogue_file import ask
from telemetry.errors import ArchiveError, BadEventError


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
    rows = ask(root, "SELECT path, bytes, lines FROM files ORDER BY path")
    return [
        CommittedFile(root / path, size_bytes, lines)
        for path, size_bytes, lines in rows
        if path.startswith(f"{DEAD_LETTERS}/") == dead_letters
    ]


def read(
    root: Path,
    *,
    first: date | None = None,
    last: date | None = None,
    dead_letters: bool = False,
    stored: bool = False,
) -> Iterator[bytes]:
    """Read archived lines, all of schema 1: the items of a served list are an object each.

    Args:
        root: The archive's directory.
        first: The first UTC date of `received_at` wanted, or None for the oldest.
        last: The last one wanted, or None for the newest.
        dead_letters: Read the dead letters instead; they have no date.
        stored: As they lie in the archive instead, byte for byte.

    Yields:
        One line, line feed included.

    Raises:
        ArchiveError: The catalogue or a file cannot be read, or a file is shorter than committed.
    """
    folders = {file.path.parent.name for file in committed_files(root, dead_letters=dead_letters)}
    for folder in sorted(folders):
        if not dead_letters and not _in_range(folder, first, last):
            continue
        # Whatever becomes of its files from here on, each line of a date is read once.
        with open_files(root, folder) as files:
            for file in files:
                yield from file.read() if stored else expanded(file.read())


def expanded(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Write lines of the archive as schema 1 has them.

    Args:
        lines: As they are stored.

    Yields:
        Each of them.

    Raises:
        ArchiveError: A served list is damaged.
    """
    for line in lines:
        try:
            yield expand(line)
        except BadEventError as error:
            raise ArchiveError(f"a line of the archive cannot be read: {error}") from None


def _in_range(folder: str, first: date | None, last: date | None) -> bool:
    day = folder.removeprefix("date=")
    return (first is None or first.isoformat() <= day) and (last is None or day <= last.isoformat())
