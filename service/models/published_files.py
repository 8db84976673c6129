"""How files come to be under `models/`: aside first, fsynced, and renamed into place, by one writer at a time.

Invariants:

- A reader finds whole files only. A name that starts with a point and ends in `.tmp` is being written by the process
  inside `exclusive`; what the next one finds of that kind is what a killed writer left, and is removed.
- Only regular files are read, at their own names: no link, and no pipe or device, whose opening or reading might never
  end.
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from telemetry.wal.disk import sync_directory

LOCK: Final = ".lock"
_ASIDE: Final = ".*.tmp"


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Be the only writer, once the others are done; remove first what a killed one left aside.

    Raises:
        OSError: The directory is not there, or cannot be written.
    """
    with (directory / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in directory.glob(_ASIDE):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        yield


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a directory to write to that becomes `path` at the end, or is gone if writing fails; for `exclusive` use."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.mkdir(mode=0o700)
    try:
        yield aside
        sync_directory(aside)
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_directory(path.parent)


def remove_directory(path: Path) -> None:
    """Remove a directory and what is in it; for `exclusive` use. A reader that has mapped its files keeps them."""
    aside = path.with_name(f".{path.name}.tmp")
    path.rename(aside)
    sync_directory(path.parent)
    shutil.rmtree(aside)


def replace(path: Path, content: bytes) -> None:
    """Replace a small file, or make it; for `exclusive` use."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(aside, content)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def open_regular(path: Path) -> int:
    """Open a file for reading, and return its descriptor.

    Raises:
        OSError: It cannot be opened, or is a link, a pipe, a device or a directory.
    """
    # O_NONBLOCK: opening a pipe that has no writer would wait for one.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return descriptor


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """Return what a small file holds.

    Args:
        path: The file.
        limit_bytes: The most that it may hold; never more is read, whatever it says of itself.

    Raises:
        OSError: It cannot be read, is no regular file, or holds more.
    """
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        pieces: list[bytes] = []
        left = limit_bytes + 1
        while left and (piece := file.read(left)):
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise OSError(errno.EFBIG, f"It holds more than {limit_bytes} bytes", str(path))
    return b"".join(pieces)


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a new file down to the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
