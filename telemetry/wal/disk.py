"""What the spool asks of a file system: a seam, so that a test can be a disk that loses what was not synced.

Invariant: nothing in `Disk` decides anything. A file's bytes survive a power cut once `sync` of it returned, and its
name once `sync_directory` of its directory did; every rule about which to call when is the caller's.
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
        """Make what was written survive a power cut; raises OSError, and is then not to be called again."""

    def truncate(self, size_bytes: int) -> None:
        """Cut it off; raises OSError."""

    def close(self) -> None:
        """Close it."""


class Disk(Protocol):
    """The operations of a spool; all may raise OSError."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and its parents, unless they are there."""

    def names(self, directory: Path) -> list[str]:
        """List what a directory holds."""

    def create(self, path: Path, size_bytes: int) -> File:
        """Make a new file with its space reserved; refuses an existing one."""

    def map(self, path: Path, size_bytes: int) -> Buffer:
        """Map a file, made or brought to this size with its space reserved, so that writing cannot fail later."""

    def read(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Read a part of a file, or all of it."""

    def sync(self, path: Path) -> None:
        """Make what another process wrote to a file survive a power cut."""

    def replace(self, path: Path, data: bytes) -> None:
        """Replace a small file at once and durably: after a power cut it is the old or the new one.

        On a full disk a file of the same length is overwritten in place, which needs no room; within one sector, as
        the files of a slot are, that is as good on disks that write sectors whole.
        """

    def unlink(self, path: Path) -> None:
        """Remove a file."""

    def sync_directory(self, path: Path) -> None:
        """Make names that were added or removed survive a power cut."""

    def free_bytes(self, path: Path) -> int:
        """Tell how much may still be written on the disk that holds a path."""


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


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _overwrite(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)


class RealDisk:
    """The operating system's files."""

    def make_directory(self, path: Path) -> None:
        """See `Disk.make_directory`."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, directory: Path) -> list[str]:
        """See `Disk.names`."""
        return [path.name for path in directory.iterdir()]

    def create(self, path: Path, size_bytes: int) -> File:
        """See `Disk.create`."""
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
        """See `Disk.map`."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(fd).st_size != size_bytes:
                os.truncate(fd, size_bytes)
            # A page without a block behind it would be a SIGBUS on a full disk.
            os.posix_fallocate(fd, 0, size_bytes)
            return mmap.mmap(fd, size_bytes)
        finally:
            os.close(fd)

    def read(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """See `Disk.read`."""
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(-1 if size_bytes is None else size_bytes) or b""

    def sync(self, path: Path) -> None:
        """See `Disk.sync`."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes) -> None:
        """See `Disk.replace`."""
        aside = path.with_name(f"{path.name}.new")
        try:
            with open(aside, "wb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            if error.errno not in _FULL or not path.is_file() or path.stat().st_size != len(data):
                raise
            _overwrite(path, data)
            return
        aside.replace(path)
        # Without this the rename itself may be forgotten by a power cut.
        self.sync_directory(path.parent)

    def unlink(self, path: Path) -> None:
        """See `Disk.unlink`."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """See `Disk.sync_directory`."""
        sync_directory(path)

    def free_bytes(self, path: Path) -> int:
        """See `Disk.free_bytes`."""
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize
