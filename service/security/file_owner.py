"""Gives files under `security/` the owner of the home directory, also if root creates them.

A command run as root must not leave a file that the service's user cannot read or append to.
"""

import os
from pathlib import Path


def make_directory(directory: Path) -> None:
    """Create a directory of mode 0700 with the owner of its parent.

    Raises:
        OSError: It cannot be created.
    """
    if directory.is_dir():
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        _copy_owner(directory.parent, directory)


def open_private(path: Path, flags: int) -> int:
    """Open or create a file of mode 0600 with the owner of its directory; return a descriptor.

    Raises:
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        try:
            _copy_owner(path.parent, descriptor)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


def _copy_owner(source: Path, target: Path | int) -> None:
    owner = source.stat()
    os.chown(target, owner.st_uid, owner.st_gid)
