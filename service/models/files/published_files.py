"""Writes and reads files under `models/`.

Invariants:

- A reader finds complete files: one writer at a time writes a temporary `.*.tmp`, fsyncs it and renames it. The next
  writer removes a temporary that a killed process left.
- Only regular files are read. A link may lead outside, and opening a pipe or a device may never return.
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
_TEMPORARY: Final = ".*.tmp"


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the lock for writing, and remove the temporaries of a killed writer first.

    Raises:
        OSError: The directory does not exist, or cannot be written.
    """
    with (directory / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in directory.glob(_TEMPORARY):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        yield


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a directory that is renamed to `path` at the end, or removed on an exception; for `exclusive` use."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
        sync_directory(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(path.parent)


def remove_directory(path: Path) -> None:
    """Remove a directory atomically; for `exclusive` use. Processes keep the files that they have mapped."""
    temporary = path.with_name(f".{path.name}.tmp")
    path.rename(temporary)
    sync_directory(path.parent)
    shutil.rmtree(temporary)


def replace(path: Path, content: bytes | memoryview) -> None:
    """Replace or create a file; for one writer at a time, as `exclusive` makes sure."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary, content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def open_regular(path: Path) -> int:
    """Open a file for reading, and return its descriptor.

    Raises:
        OSError: It cannot be opened, or is a link, a pipe, a device or a directory.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return descriptor


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: The file cannot be read, is not regular, or is longer than `limit_bytes`.
    """
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        pieces: list[bytes] = []
        left = limit_bytes + 1
        while left and (piece := file.read(left)):
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise OSError(errno.EFBIG, f"It is longer than {limit_bytes} bytes", str(path))
    return b"".join(pieces)


def write(path: Path, content: bytes | memoryview) -> None:
    """Write and fsync a new file."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
