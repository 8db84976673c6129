"""The kind of journal that SQLite keeps for a catalogue.

The write-ahead journal is the faster one, and its readers never wait. It needs memory that all its users share, so it
is unsound on a file system that several machines mount (https://sqlite.org/wal.html, section 1). There the rollback
journal is used, which needs file locks alone; NFS 4, CephFS, GFS2 and OCFS2 have those.

Invariant: a catalogue that has a rollback journal keeps it, whichever machine opens it. So a machine that exports its
own disk, and sees no network file system, does not change what the others need.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final, Literal, TypeAlias

from telemetry.errors import ArchiveError

JournalKind: TypeAlias = Literal["write-ahead", "rollback"]
KINDS: Final[tuple[JournalKind, ...]] = ("write-ahead", "rollback")
_MOUNTS: Final = Path("/proc/self/mountinfo")
# File systems that other machines may mount too; any of FUSE may be one.
_NETWORK: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2"}
    | {"smb3", "smbfs", "virtiofs"}
)
_PRAGMAS: Final = {"write-ahead": "WAL", "rollback": "TRUNCATE"}


def file_system_of(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the file system that a path is on, such as `ext4`; None where Linux does not say."""
    try:
        device = path.stat().st_dev
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        # proc_pid_mountinfo(5): the device is the third field, the type the first one behind the hyphen.
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[2:3] == [wanted]:
            return rest.split(" ")[0]
    return None


def is_network(file_system: str | None) -> bool:
    """Whether other machines may have such a file system mounted, too."""
    return file_system is not None and file_system.partition(".")[0] in _NETWORK


def choose(stored: JournalKind | None, file_system: str | None) -> JournalKind:
    """Return the kind for a catalogue; `stored` is the one that it has, None for a new one."""
    return "rollback" if stored == "rollback" or is_network(file_system) else "write-ahead"


def stored_kind(db: sqlite3.Connection) -> JournalKind | None:
    """Return the kind that an open catalogue has; None for an empty file."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if not pages:
        return None
    return "write-ahead" if _mode(db) == "wal" else "rollback"


def set_kind(db: sqlite3.Connection, kind: JournalKind, root: Path) -> None:
    """Have an open catalogue use a kind of journal.

    Raises:
        ArchiveError: Another process has it open with the write-ahead journal.
        sqlite3.Error: It cannot be read or written.
    """
    try:
        db.execute(f"PRAGMA journal_mode={_PRAGMAS[kind]}")
    except sqlite3.OperationalError:
        if _mode(db) != "wal" or kind == "write-ahead":
            raise
    if kind == "rollback" and _mode(db) == "wal":
        raise ArchiveError(
            f"The catalogue in {root} needs a rollback journal to be shared by machines, and another process has it"
            " open with the write-ahead journal: stop every consumer and command that uses this archive, once."
        )


def _mode(db: sqlite3.Connection) -> str:
    return str(db.execute("PRAGMA journal_mode").fetchone()[0])
