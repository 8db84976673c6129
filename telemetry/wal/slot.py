"""A slot is a producer's directory `spool/<slot>/`, held by one process at a time.

Invariant: while a `Slot` is open no other process has the same one (an exclusive flock on `lock`). Its identity is
replaced atomically and durably.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from telemetry.errors import SlotTakenError, SpoolError
from telemetry.wal.disk import Disk, RealDisk
from telemetry.wal.slot_identity import IDENTITY_FILE, SlotIdentity, decode_identity, encode_identity

LOCK: Final = "lock"
_MOST_SLOTS = 1024
_POLL_S = 0.02


class Slot:
    """One open slot.

    Attributes:
        identity: Its durable facts; None for a new slot, or one whose file is unreadable.
        is_new: Whether there was no such file.
    """

    def __init__(self, number: int, directory: Path, lock_fd: int, disk: Disk) -> None:
        self.number = number
        self.directory = directory
        self.is_new = IDENTITY_FILE not in disk.names(directory)
        self.identity = None if self.is_new else decode_identity(disk.read(directory / IDENTITY_FILE))
        self._disk = disk
        self._lock_fd: int | None = lock_fd

    def __repr__(self) -> str:
        state = "closed" if self._lock_fd is None else "open"
        return f"<Slot {self.number} {state} {self.identity}>"

    @classmethod
    def open(cls, spool: Path, number: int | None, disk: Disk | None = None, *, patience_s: float = 0.0) -> "Slot":
        """Open a slot of the directory of all slots and hold it until `close` or the end of the process.

        Args:
            spool: The directory; created if it is missing.
            number: Which slot, or None for the lowest free one.
            disk: The file system; the lock is always on the real one.
            patience_s: How long to wait for a numbered slot, which an inspection holds for a moment.

        Raises:
            SlotTakenError: Another process holds it.
            SpoolError: Its directory cannot be used.
        """
        disk = disk or RealDisk()
        for candidate in [number] if number is not None else range(_MOST_SLOTS):
            directory = spool / str(candidate)
            try:
                disk.make_directory(directory)
                lock_fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise SpoolError(f"Slot {candidate} in {spool} cannot be used: {error.strerror}.") from None
            if not _lock(lock_fd, patience_s if number is not None else 0.0):
                os.close(lock_fd)
                continue
            try:
                return cls(candidate, directory, lock_fd, disk)
            except OSError as error:
                os.close(lock_fd)
                raise SpoolError(f"Slot {candidate} in {spool} cannot be used: {error.strerror}.") from None
        if number is not None:
            raise SlotTakenError(f"Slot {number} in {spool} is held by another process.")
        raise SlotTakenError(f"All {_MOST_SLOTS} slots in {spool} are held by other processes.")

    def save(self, identity: SlotIdentity) -> None:
        """Replace the identity durably.

        Raises:
            OSError: The disk refused; the old identity stays.
        """
        try:
            self._disk.replace(self.directory / IDENTITY_FILE, encode_identity(identity))
            # The slot's own name must survive a power cut too.
            self._disk.sync_directory(self.directory.parent)
        except OSError:
            if self.identity is not None:
                # The new file may be in place although it could not be synced.
                with suppress(OSError):
                    self._disk.replace(self.directory / IDENTITY_FILE, encode_identity(self.identity))
            raise
        self.identity = identity

    def close(self) -> None:
        """Release the lock."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _lock(fd: int, patience_s: float) -> bool:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def is_held(directory: Path) -> bool:
    """Whether a living process holds the slot of a directory; briefly takes its lock if not.

    Raises:
        OSError: The directory cannot be read.
    """
    try:
        fd = os.open(directory / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        # A shared lock: two processes that look at once must not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
