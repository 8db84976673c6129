"""Where a Unix socket of an installation lies: in a directory that no other user can enter.

Invariants:

- The directory is ours and has mode 0700 before anything is put into it, so its permissions alone decide who connects.
- The path fits into an address: sun_path of unix(7) holds 107 bytes and a final zero.
- A directory outside of the home is new, is made by us (mkdtemp) and is named by a file in run/, by which the next
  holder of the home, too, finds and removes it.
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


def place(home: Path, name: str) -> Path:
    """Choose where a socket is to lie, and make its directory private.

    Args:
        home: The home directory, absolute, held by the caller.
        name: The socket's file name.

    Returns:
        A path in run/; or in a new directory for temporary files, where that path would be too long, run/ is another
        user's, or its file system (a shared folder of a virtual machine, for one) holds no sockets.

    Raises:
        BadSetting: No directory will do.
    """
    remove(home)
    run = home / "run"
    run.mkdir(mode=_MODE, parents=True, exist_ok=True)
    if run.stat().st_uid == os.geteuid():
        run.chmod(_MODE)
        if _holds(run / name):
            return run / name
    for base in (None, "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes a private one
        # Without a base, the search for one that can be written may fail too.
        with contextlib.suppress(OSError):
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            try:
                if _holds(directory / name):
                    (run / _NAMED_IN).write_bytes(os.fsencode(directory))
                    return directory / name
            except OSError:
                # What no file names would be left behind.
                pass
            directory.rmdir()
    raise BadSetting(
        f"No socket can lie at {run / name} (at most {PATH_LIMIT_BYTES} bytes), "
        "nor in a directory for temporary files; name another, shorter RECOLLECT_HOME"
    )


def outside(home: Path) -> Path | None:
    """Return the directory outside of the home that holds its sockets; None if there is none of ours."""
    with contextlib.suppress(OSError, ValueError):
        directory = Path(os.fsdecode((home / "run" / _NAMED_IN).read_bytes()))
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
        (home / "run" / _NAMED_IN).unlink()


def _holds(path: Path) -> bool:
    """Whether a socket can lie there; tried, for not every file system holds them."""
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            path.unlink(missing_ok=True)
            tried.bind(os.fsencode(path))
        path.unlink()
    except OSError:
        return False
    return True
