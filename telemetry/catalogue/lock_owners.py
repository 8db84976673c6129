"""Which processes hold exclusive locks of given files, as Linux lists them.

Invariant: a process is named only if the kernel lists a lock on the file's inode under its id and it has that very file
open. A process of another machine or another container is never named.

No file is opened for it: closing any descriptor of a file frees all POSIX locks that this process, and so SQLite, holds
on it.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOCKS: Final = Path("/proc/locks")
_KINDS: Final = ("POSIX", "FLOCK")
# number: kind mode type pid device:inode first last; "->" before the kind marks one that waits.
_FIELDS: Final = 8


def exclusive_owners(paths: Iterable[Path]) -> set[int]:
    """Return the ids of other processes that hold an exclusive lock, POSIX or `flock`, on any of some files.

    Files that do not exist have none; neither has any file where the kernel keeps no list.
    """
    files = []
    for path in paths:
        with suppress(OSError):
            files.append(path.stat())
    inodes = {str(file.st_ino) for file in files}
    try:
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return set()
    pids = set()
    for fields in map(str.split, lines):
        # The device is that of the file system, which is not always the one that stat names.
        if len(fields) == _FIELDS and fields[1] in _KINDS and fields[3] == "WRITE" and _inode(fields) in inodes:
            pids.add(int(fields[4]))
    return {pid for pid in pids - {os.getpid()} if pid > 0 and _has_open(pid, files)}


def _inode(fields: list[str]) -> str:
    return fields[5].rpartition(":")[2]


def _has_open(pid: int, files: Iterable[os.stat_result]) -> bool:
    """Whether a process has one of some files open; False if this process may not know."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with suppress(OSError):
            opened = descriptor.stat()
            if any(os.path.samestat(opened, file) for file in files):
                return True
    return False
