"""The identity of an archive, read without its lease.

Invariant: a copy of an archive in another folder is distinguished from the original, so that both cannot use one
namespace in Redis. A copy is another file (inode) in another folder; a moved archive, or one restored in place, is not
a copy.
"""

import os
from pathlib import Path

from telemetry.catalogue.catalogue import Catalogue
from telemetry.catalogue.catalogue_file import FILE_NAME, query_catalogue
from telemetry.errors import ArchiveError
from telemetry.ids import uuid7
from telemetry.stream.namespace_owner import OwnerMark


def identify(root: Path, *, in_place_of: OwnerMark | None = None, claim: bool = False) -> OwnerMark:
    """Read an archive's identity; the archive is made if it is missing.

    Args:
        in_place_of: The mark of an archive that this one replaces, to be stored.
        claim: Give a copy an identity of its own, which replaces that of the original.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ArchiveError(f"The archive {root} cannot be made: {error.strerror}.") from None
    catalogue = Catalogue(root)
    try:
        known = mark = catalogue.load_or_create_mark()
        home, here = catalogue.setting("home"), _home(root)
        copied = _is_elsewhere(home, here)
        if claim and copied:
            mark = OwnerMark(uuid7()).in_place_of(mark)
        if in_place_of is not None:
            mark = mark.in_place_of(in_place_of)
        if mark != known:
            catalogue.set_setting("mark", str(mark))
        if home != here and (claim or not copied):
            catalogue.set_setting("home", here)
    finally:
        catalogue.close()
    return mark


def is_copy(root: Path) -> bool:
    """Decide whether an archive is a copy, in another folder, of the one that got its identity."""
    rows = query_catalogue(root, "SELECT value FROM settings WHERE name = 'home'", since=2)
    return bool(rows) and _is_elsewhere(rows[0][0], _home(root))


def known_identity(root: Path) -> OwnerMark | None:
    """Read an archive's identity without changing anything.

    Returns:
        Its mark; None if there is no archive, or none that a consumer of this version has held.
    """
    rows = query_catalogue(root, "SELECT value FROM settings WHERE name = 'mark'", since=2)
    return OwnerMark.parse(rows[0][0]) if rows else None


def _home(root: Path) -> str:
    try:
        return f"{(root / FILE_NAME).stat().st_ino} {os.path.realpath(root)}"
    except OSError as error:
        raise ArchiveError(f"The catalogue in {root} cannot be read: {error.strerror}.") from None


def _is_elsewhere(home: str | None, here: str) -> bool:
    """Whether both the file and its folder differ."""
    if home is None:
        return False
    (inode, _, folder), (inode_here, _, folder_here) = home.partition(" "), here.partition(" ")
    return inode != inode_here and folder != folder_here
