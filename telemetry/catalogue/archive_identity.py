"""The identity of an archive, read by those who do not hold its lease.

Invariant: a copy of an archive that lies elsewhere is told from the archive itself, so that both cannot have one place
in Redis: it is another file (inode) in another folder. What was only moved, or was restored where it was, is neither.
"""

import os
from pathlib import Path

from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import FILE_NAME, ask
from telemetry.errors import ArchiveError
from telemetry.ids import uuid7
from telemetry.stream.namespace_owner import OwnerMark


def identify(root: Path, *, in_place_of: OwnerMark | None = None, claim: bool = False) -> OwnerMark:
    """Read an archive's identity; the archive is made if it is not there.

    Args:
        root: The archive's directory.
        in_place_of: The mark of an archive in whose place it comes, to be remembered.
        claim: Give a copy an identity of its own, in the place of the one that it was copied from.

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
        known = mark = catalogue.mark()
        home, here = catalogue.setting("home"), _home(root)
        copied = _is_elsewhere(home, here)
        if claim and copied:
            mark = OwnerMark(uuid7()).in_place_of(mark)
        if in_place_of is not None:
            mark = mark.in_place_of(in_place_of)
        if mark != known:
            catalogue.remember_mark(mark)
        if home != here and (claim or not copied):
            catalogue.remember("home", here)
    finally:
        catalogue.close()
    return mark


def is_copy(root: Path) -> bool:
    """Tell whether an archive is a copy, in another folder, of the one that got its identity.

    Args:
        root: The archive's directory.

    Raises:
        ArchiveError: Its catalogue cannot be read.
    """
    rows = ask(root, "SELECT value FROM settings WHERE name = 'home'", since=2)
    return bool(rows) and _is_elsewhere(rows[0][0], _home(root))


def _home(root: Path) -> str:
    try:
        return f"{(root / FILE_NAME).stat().st_ino} {os.path.realpath(root)}"
    except OSError as error:
        raise ArchiveError(f"the catalogue in {root} cannot be looked at: {error.strerror}") from None


def _is_elsewhere(home: str | None, here: str) -> bool:
    """Whether both the file and its folder are others."""
    if home is None:
        return False
    (inode, _, folder), (inode_here, _, folder_here) = home.partition(" "), here.partition(" ")
    return inode != inode_here and folder != folder_here


def known_identity(root: Path) -> OwnerMark | None:
    """Read an archive's identity without making or changing anything.

    Args:
        root: The archive's directory.

    Returns:
        Its mark; None if there is no archive there, or one that no consumer of this version has held yet.

    Raises:
        ArchiveError: Its catalogue cannot be read.
    """
    rows = ask(root, "SELECT value FROM settings WHERE name = 'mark'", since=2)
    return OwnerMark.parse(rows[0][0]) if rows else None
