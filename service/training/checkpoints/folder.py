"""The folder of checkpoints, in which a fit that was killed finds how far it had come.

Invariants:

- A checkpoint appears complete or not at all: it is written under another name, synced and renamed.
- Its name is a digest of everything that its fit depends on, so a fit finds its own checkpoint or none.
- It ends with a checksum, so that a damaged one is not used.
- Checkpoints of a command that ends well are removed with it; those of a killed one, after `KEPT_S`.
- Several commands may use a folder at the same time, and an erasure may remove any of its files.
"""

import logging
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from service.errors import RunError
from telemetry.wal.disk import sync_directory

SUFFIX: Final = ".checkpoint"
KEPT_S: Final = 7 * 86_400.0
TEMPORARY: Final = ".tmp"
TEMPORARY_KEPT_S: Final = 3600.0
# A checkpoint may take this share of the time of a fit.
MOST_SHARE: Final = 0.05
_CHECKSUM_BYTES: Final = 4
_BLOCK_BYTES: Final = 1 << 20
_log: Final = logging.getLogger("recollect.training")


@dataclass(frozen=True)
class CheckpointFolder:
    """Where the fits of one command keep checkpoints.

    Attributes:
        path: The folder; made when the first checkpoint is written.
        interval_s: The time between checkpoints of a fit; 0 for one at every step.
        used: The names of the fits that asked for a checkpoint.
    """

    path: Path
    interval_s: float
    used: set[str] = field(default_factory=set)


_folder: ContextVar[CheckpointFolder | None] = ContextVar("recollect_checkpoint_folder", default=None)


@contextmanager
def checkpoints_in(path: Path, interval_s: float) -> Iterator[None]:
    """Let fits inside keep checkpoints in a folder, and remove theirs unless there is an exception."""
    folder = CheckpointFolder(path, interval_s)
    _remove_old(path)
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)
    for name in folder.used:
        (path / f"{name}{SUFFIX}").unlink(missing_ok=True)


def are_kept() -> bool:
    """Whether there is a folder to keep checkpoints in."""
    return _folder.get() is not None


def _remove_old(path: Path) -> None:
    now_s = time.time()
    for suffix, kept_s in ((SUFFIX, KEPT_S), (TEMPORARY, TEMPORARY_KEPT_S)):
        for file in path.glob(f"*{suffix}"):
            # Another command may have renamed or removed it meanwhile, and another user's file may have to stay.
            with suppress(FileNotFoundError, PermissionError):
                if file.stat().st_mtime < now_s - kept_s:
                    file.unlink()


class Checkpoint:
    """The checkpoint of one fit; outside of `checkpoints_in` it is never found and never due."""

    def __init__(self, name: str) -> None:
        self._folder = _folder.get()
        self._name = name
        self._next_s = 0.0
        if self._folder is not None:
            self._folder.used.add(name)
            self._next_s = time.monotonic() + self._folder.interval_s

    @property
    def interval_s(self) -> float | None:
        """The time between two checkpoints; None without a folder to keep them in."""
        return None if self._folder is None else self._folder.interval_s

    @property
    def is_due(self) -> bool:
        """Whether it is time to write one."""
        return self._folder is not None and time.monotonic() >= self._next_s

    def read(self) -> bytes | None:
        """Return what was written last; None if nothing was, or, with a warning, if it is damaged."""
        if self._folder is None:
            return None
        path = self._path(self._folder)
        try:
            with path.open("rb") as file:
                content = file.read(max(0, os.fstat(file.fileno()).st_size - _CHECKSUM_BYTES))
                checksum = file.read()
        except FileNotFoundError:
            return None
        if checksum != zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big"):
            self.remove()
            return None
        return content

    def write(self, content: Callable[[BinaryIO], None]) -> None:
        """Replace the checkpoint by what `content` writes into a file.

        Raises:
            RunError: The folder cannot be written.
        """
        if self._folder is None:
            return
        started_s = time.monotonic()
        try:
            self._replace(self._folder, content)
        except OSError as error:
            raise RunError(
                f"The checkpoint of the training cannot be written in {self._folder.path}: {error.strerror or error}."
            ) from error
        ended_s, interval_s = time.monotonic(), self._folder.interval_s
        if interval_s:
            self._next_s = ended_s + max(interval_s, (ended_s - started_s) / MOST_SHARE)

    def _replace(self, folder: CheckpointFolder, content: Callable[[BinaryIO], None]) -> None:
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(folder)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w+b") as file:
                content(file)
                file.write(_checksum(file))
                file.flush()
                os.fsync(file.fileno())
            # The erasure of a user removes this file, too; the training goes on.
            with suppress(FileNotFoundError):
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(folder.path)

    def remove(self) -> None:
        """Remove it, with a warning, because it cannot be read."""
        if self._folder is not None:
            path = self._path(self._folder)
            path.unlink(missing_ok=True)
            _log.warning("The checkpoint %s is damaged and was removed: the fit begins without it.", path)

    def _path(self, folder: CheckpointFolder) -> Path:
        return folder.path / f"{self._name}{SUFFIX}"


def _checksum(file: BinaryIO) -> bytes:
    """Return the checksum of what a file holds, and leave the file at its end."""
    file.seek(0)
    checksum = 0
    while block := file.read(_BLOCK_BYTES):
        checksum = zlib.crc32(block, checksum)
    return checksum.to_bytes(_CHECKSUM_BYTES, "big")
