"""Whose the files under `security/` are: those of the owner of the home directory, also when root made them.

An operator who makes a key or trains as root must not leave a file that the service's own user cannot read or add to.
"""

import os
from pathlib import Path


def make_directory(directory: Path) -> None:
    """Make a directory that is its owner's alone, and its owner that of the one it is in.

    Raises:
        OSError: It cannot be made.
    """
    if directory.is_dir():
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        _give(directory, directory.parent)


def open_private(path: Path, flags: int) -> int:
    """Open a file for its owner alone, and make its owner that of the directory it is in; return a descriptor.

    Raises:
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        try:
            _give(descriptor, path.parent)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


def _give(what: Path | int, like: Path) -> None:
    owner = like.stat()
    os.chown(what, owner.st_uid, owner.st_gid)
