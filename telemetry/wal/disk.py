"""The file operations of a spool: a seam, so that a test can supply a disk that loses what was not synced.

Invariant: `Disk` decides nothing. A file's bytes survive a power cut once `sync` of it returned, and its name once
`sync_directory` of its directory did; the caller orders the calls.
"""

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Buffer: TypeAlias = mmap.mmap | bytearray


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class File(Protocol):
    """An open file of fixed size."""

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all of it; raises OSError."""

    def sync(self) -> None:
        """Make what was written survive a power cut; raises OSError, after which it must not be called again."""

    def truncate(self, size_bytes: int) -> None:
        """Truncate it; raises OSError."""

    def close(self) -> None:
        """Close it."""


class Disk(Protocol):
    """The operations of a spool; all may raise OSError."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents, unless they exist."""

    def names(self, directory: Path) -> list[str]:
        """List the names in a directory."""

    def create(self, path: Path, size_bytes: int) -> File:
        """Create a file with its space reserved; refuses an existing one."""

    def map(self, path: Path, size_bytes: int) -> Buffer:
        """Map a file, created or resized with its space reserved, so that a later write cannot fail."""

    def read(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Read a part of a file, or all of it."""

    def sync(self, path: Path) -> None:
        """Make what another process wrote to a file survive a power cut."""

    def replace(self, path: Path, data: bytes) -> None:
        """Replace a small file atomically and durably: a power cut leaves the old or the new one.

        On a full disk a file of the same length is overwritten in place, which needs no room. Within one sector, as
        the files of a slot are, that is as safe on disks that write sectors whole.
        """

    def unlink(self, path: Path) -> None:
        """Remove a file."""

    def sync_directory(self, path: Path) -> None:
        """Make added and removed names survive a power cut."""

    def free_bytes(self, path: Path) -> int:
        """Return the free room of the disk that holds a path."""


class _RealFile:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write_at(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)

    def close(self) -> None:
        os.close(self._fd)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _overwrite(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)


class RealDisk:
    """The operating system's files; each method as in `Disk`."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in directory.iterdir()]

    def create(self, path: Path, size_bytes: int) -> File:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                path.unlink()
            raise
        return _RealFile(fd)

    def map(self, path: Path, size_bytes: int) -> Buffer:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(fd).st_size != size_bytes:
                os.truncate(fd, size_bytes)
            # Writing to a page without a block behind it raises SIGBUS on a full disk.
            os.posix_fallocate(fd, 0, size_bytes)
            return mmap.mmap(fd, size_bytes)
        finally:
            os.close(fd)

    def read(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(-1 if size_bytes is None else size_bytes) or b""

    def sync(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes) -> None:
        staged = path.with_name(f"{path.name}.new")
        try:
            with open(staged, "wb", opener=_open_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                staged.unlink()
            if error.errno not in _FULL or not path.is_file() or path.stat().st_size != len(data):
                raise
            _overwrite(path, data)
            return
        staged.replace(path)
        # A power cut may undo the rename itself until the directory is synced.
        self.sync_directory(path.parent)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        sync_directory(path)

    def free_bytes(self, path: Path) -> int:
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize
