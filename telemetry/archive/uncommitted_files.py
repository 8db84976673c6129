"""Removal of files that an archive's catalogue does not name: the remains of an interrupted rewriting or compaction."""

from pathlib import Path

from telemetry.archive.archive_files import DATE_PREFIX, DEAD_LETTERS, written_by
from telemetry.archive.archive_lock import COMPACTION_LOCK, try_lock
from telemetry.catalogue.catalogue_file import query_catalogue
from telemetry.errors import ArchiveError
from telemetry.wal.disk import sync_directory


def remove_uncommitted(root: Path, lease_epoch: int, part: str) -> bool:
    """Remove files that do not count and that nothing writes to.

    Args:
        lease_epoch: The caller's lease; files of a later lease are kept.
        part: The name of the parts that are appended to now; those and later ones are kept.

    Returns:
        Whether it was done; not while a compaction runs, whose file does not count yet.
    """
    try:
        with try_lock(root / COMPACTION_LOCK) as locked:
            if not locked:
                return False
            known = {path for (path,) in query_catalogue(root, "SELECT path FROM files")}
            for file in [*root.glob(f"{DATE_PREFIX}*/*"), *root.glob(f"{DEAD_LETTERS}/*")]:
                growing = file.name.startswith("part-") and file.name >= part
                newer = (written_by(file.name) or 0) > lease_epoch
                if not (growing or newer or str(file.relative_to(root)) in known):
                    file.unlink()
                    sync_directory(file.parent)
            return True
    except OSError as error:
        raise ArchiveError(f"Uncommitted files in {root} cannot be removed: {error.strerror}.") from None
