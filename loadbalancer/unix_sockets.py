"""The directory of an installation's Unix sockets.

Invariants:

- It belongs to this user and has mode 0700 before anything is created in it, so that no other user can connect.
- The path fits into an address: sun_path of unix(7) holds 107 bytes and a final zero.
- A directory outside of the home is new (mkdtemp) and named by a file in run/, by which the next holder of the home
  finds and removes it.
"""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from loadbalancer.errors import BadSetting

PATH_LIMIT_BYTES = 107
_PREFIX = "recollect-"
_NAMED_IN = "sockets"
_MODE = 0o700


def choose_path(home: Path, name: str, *, limit_bytes: int = PATH_LIMIT_BYTES) -> Path:
    """Choose the path of a socket of an absolute, held home, and make its directory private.

    Returns:
        A path in run/; or in a new temporary directory if that path is too long, run/ belongs to another user, or its
        file system (such as a shared folder of a virtual machine) holds no sockets.

    Raises:
        BadSetting: No directory is suitable.
    """
    remove(home)
    run = home / "run"
    run.mkdir(mode=_MODE, parents=True, exist_ok=True)
    if run.stat().st_uid == os.geteuid():
        run.chmod(_MODE)
        if _holds_sockets(run / name, limit_bytes):
            return run / name
    for base in (None, "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes a private one
        # Without a base, mkdtemp fails if it finds no writable directory.
        with contextlib.suppress(OSError):
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            try:
                if _holds_sockets(directory / name, limit_bytes):
                    (run / _NAMED_IN).write_bytes(os.fsencode(directory))
                    return directory / name
            except OSError:
                # Without the file that names it, the directory would be left behind.
                pass
            directory.rmdir()
    raise BadSetting(
        f"No socket can be created at {run / name} (at most {limit_bytes} bytes), "
        "nor in a temporary directory; name another, shorter RECOLLECT_HOME."
    )


def directory_outside(home: Path) -> Path | None:
    """Return the directory outside of the home that holds its sockets, or None."""
    with contextlib.suppress(OSError, ValueError):
        directory = Path(os.fsdecode((home / "run" / _NAMED_IN).read_bytes()))
        status = directory.lstat()
        # It may have been cleaned away, and its name reused by another user.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and directory.name.startswith(_PREFIX):
            return directory
    return None


def remove(home: Path) -> None:
    """Remove the directory outside of the home, if there is one; the owners of its sockets have exited."""
    directory = directory_outside(home)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        (home / "run" / _NAMED_IN).unlink()


def _holds_sockets(path: Path, limit_bytes: int) -> bool:
    """Try to create a socket: not every file system holds them."""
    if len(os.fsencode(path)) > limit_bytes:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            path.unlink(missing_ok=True)
            tried.bind(os.fsencode(path))
        path.unlink()
    except OSError:
        return False
    return True
