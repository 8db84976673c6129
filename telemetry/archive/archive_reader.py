"""Reads the archive while a consumer writes it.

Invariant: a reader sees committed lines only, each once; it stops at the committed length of every file. A file that is
compacted or rewritten meanwhile makes no difference.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from telemetry.archive.archive_files import DEAD_LETTERS, date_of
from telemetry.archive.archive_snapshot import open_files
from telemetry.archive.schema_1 import expand
from telemetry.catalogue.catalogue_file import query_catalogue
from telemetry.errors import ArchiveError, BadEventError


class CommittedFile(NamedTuple):
    """A file of the archive and its committed length."""

    path: Path
    size_bytes: int
    lines: int


def committed_files(root: Path, *, dead_letters: bool = False) -> list[CommittedFile]:
    """List the files of events, or on request those of dead letters, by date and then in the order they were begun."""
    rows = query_catalogue(root, "SELECT path, bytes, lines FROM files ORDER BY path")
    return [
        CommittedFile(root / path, size_bytes, lines)
        for path, size_bytes, lines in rows
        if path.startswith(f"{DEAD_LETTERS}/") == dead_letters
    ]


def read(
    root: Path, *, first: date | None = None, last: date | None = None, dead_letters: bool = False, stored: bool = False
) -> Iterator[bytes]:
    """Read archived lines.

    Args:
        first: The first UTC date of `received_at`, or None for the oldest.
        last: The last one, or None for the newest.
        dead_letters: Read the dead letters instead; they have no date.
        stored: Byte for byte as stored; otherwise in schema 1, the items of a served list as an object each.

    Yields:
        One line, line feed included.
    """
    folders = {file.path.parent.name for file in committed_files(root, dead_letters=dead_letters)}
    for folder in sorted(folders):
        if not dead_letters and not _in_range(date_of(folder), first, last):
            continue
        # Files that are replaced from here on still read as they were: each line of a date is read once.
        with open_files(root, folder) as files:
            for file in files:
                yield from file.read() if stored else expanded(file.read())


def expanded(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Convert stored lines to schema 1."""
    for line in lines:
        try:
            yield expand(line)
        except BadEventError as error:
            raise ArchiveError(f"A line of the archive cannot be read: {error}") from None


def _in_range(day: str, first: date | None, last: date | None) -> bool:
    return (first is None or first.isoformat() <= day) and (last is None or day <= last.isoformat())
