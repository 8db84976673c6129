"""Where a Unix socket of an installation lies: in a directory that no other user can enter.

Invariants:

- The directory is ours and has mode 0700 before anything is put into it, so its permissions alone decide who connects.
- The path fits into an address: sun_path of unix(7) holds 107 bytes and a final zero.
- A directory outside of the home is new, is made by us (mkdtemp) and is named by a link in run/, through which whoever
  ends the installation finds and removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from loadbalancer.errors import BadSetting

PATH_LIMIT_BYTES = 107
_PREFIX = "recollect-"
_LINK = "sockets"
_MODE = 0o700


def place(home: Path, name: str) -> Path:
    """Choose where a socket is to lie, and make its directory private.

    Args:
        home: the home directory, absolute, held by the caller.
        name: the socket's file name.

    Returns:
        A path in run/, or in a new directory for temporary files where that path would be too long.

    Raises:
        BadSetting: run/ belongs to another user, or no directory is near enough.
    """
    remove(home)
    run = home / "run"
    run.mkdir(mode=_MODE, parents=True, exist_ok=True)
    if run.stat().st_uid != os.geteuid():
        raise BadSetting(f"{run} belongs to another user; remove it or name another RECOLLECT_HOME")
    run.chmod(_MODE)
    if _fits(run / name):
        return run / name
    for base in (None, "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes a private one
        # Without a base, the search for one that can be written may fail too.
        with contextlib.suppress(OSError):
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            if _fits(directory / name):
                (run / _LINK).symlink_to(directory)
                return directory / name
            directory.rmdir()
    raise BadSetting(
        f"The socket {run / name} would have a path of more than {PATH_LIMIT_BYTES} bytes, "
        "and no directory for temporary files can be written; name a shorter RECOLLECT_HOME"
    )


def outside(home: Path) -> Path | None:
    """Return the directory outside of the home that holds its sockets; None if there is none of ours."""
    with contextlib.suppress(OSError):
        directory = (home / "run" / _LINK).readlink()
        status = directory.lstat()
        # Since it was made it may have been cleaned away, and its name taken by another user.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and directory.name.startswith(_PREFIX):
            return directory
    return None


def remove(home: Path) -> None:
    """Remove the directory outside of the home, if there is one; its sockets' owners have ended."""
    directory = outside(home)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        (home / "run" / _LINK).unlink()


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= PATH_LIMIT_BYTES
