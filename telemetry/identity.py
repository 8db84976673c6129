"""The identity of an archive, read by those who do not hold its lease."""

from pathlib import Path

from telemetry.catalogue import Catalogue
from telemetry.database import ask
from telemetry.errors import ArchiveError
from telemetry.ownership import Mark


def identify(root: Path, *, in_place_of: Mark | None = None) -> Mark:
    """Read an archive's identity; the archive is made if it is not there.

    Args:
        root: The archive's directory.
        in_place_of: The mark of an archive in whose place it comes, to be remembered.

    Returns:
        Its mark.

    Raises:
        ArchiveError: It cannot be made or opened.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ArchiveError(f"the archive {root} cannot be made: {error.strerror}") from None
    catalogue = Catalogue(root)
    try:
        mark = catalogue.mark()
        if in_place_of is not None:
            mark = mark.in_place_of(in_place_of)
            catalogue.remember_mark(mark)
    finally:
        catalogue.close()
    return mark


def known_identity(root: Path) -> Mark | None:
    """Read an archive's identity without making or changing anything.

    Args:
        root: The archive's directory.

    Returns:
        Its mark; None if there is no archive there, or one that no consumer of this version has held yet.

    Raises:
        ArchiveError: Its catalogue cannot be read.
    """
    rows = ask(root, "SELECT value FROM settings WHERE name = 'mark'", since=2)
    return Mark.parse(rows[0][0]) if rows else None
