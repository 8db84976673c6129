"""The lease of an archive: its row in the catalogue, the holder's file lock, and when a standby may take over.

Invariant: a lease is acquired only if its holder released it, or died on this machine (its file lock is free), or did
not renew its heartbeat for `takeover_s` of the standby's monotonic clock. No wall clock decides, so no clock jump can.

Even a wrong takeover would lose nothing: every commit checks the lease (`catalogue_file.py`).
"""

import fcntl
import os
import platform
import socket
from pathlib import Path
from typing import Final, NamedTuple

from telemetry.catalogue.catalogue_file import Database

_LOCK: Final = "holder.lock"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def this_machine() -> str:
    """Return an id of this machine's current boot, the scope of a file lock."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def holder_name(pid: int | None = None) -> str:
    """Return the name under which a process of this machine holds a lease, by default this process."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"


class Lease(NamedTuple):
    """The lease row: holder is '' while there is none; `locked` is whether the holder has the file lock."""

    epoch: int
    holder: str
    beat: int
    machine: str
    locked: bool


class LeaseTable:
    """The lease row of a catalogue."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._sql = database.sql

    def read(self) -> Lease:
        """Read the row."""
        with self._db.errors_translated():
            row = self._sql.execute("SELECT epoch, holder, beat, machine, locked FROM lease").fetchone()
        return Lease(row[0], row[1], row[2], row[3], bool(row[4]))

    def acquire(self, last: Lease, holder: str, machine: str, *, locked: bool) -> Lease | None:
        """Become the holder, unless the row has changed since `last` was read; files of earlier holders are sealed.

        Returns:
            The new lease, or None if another process was first.
        """
        with self._db.transaction():
            changed = self._sql.execute(
                "UPDATE lease SET epoch = epoch + 1, holder = ?, beat = beat + 1, machine = ?, locked = ?"
                " WHERE epoch = ? AND beat = ?",
                (holder, machine, locked, last.epoch, last.beat),
            ).rowcount
            if changed:
                self._sql.execute("UPDATE files SET sealed = 1 WHERE sealed = 0")
        return Lease(last.epoch + 1, holder, last.beat + 1, machine, locked) if changed else None

    def beat(self, lease_epoch: int, *, locked: bool) -> None:
        """Renew the heartbeat."""
        with self._db.lease_transaction(lease_epoch):
            self._sql.execute("UPDATE lease SET locked = ?", (locked,))

    def release(self, lease_epoch: int) -> None:
        """Let a successor start at once; does nothing if another consumer holds the lease."""
        with self._db.transaction():
            self._sql.execute("UPDATE lease SET holder = '', beat = beat + 1 WHERE epoch = ?", (lease_epoch,))


class HolderLock:
    """The file lock of a living holder; the kernel frees it with the process."""

    def __init__(self, root: Path) -> None:
        self._path = root / _LOCK
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Try to get the lock, or keep it; returns whether it is held."""
        if self._fd is None:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return False
            self._fd = fd
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class LeaseWatch:
    """A standby's view of the lease.

    Args:
        takeover_s: How long the heartbeat must stand still.
    """

    def __init__(self, takeover_s: float, machine: str) -> None:
        self._takeover_s = takeover_s
        self._machine = machine
        self._last: tuple[int, int] | None = None
        self._since_s = 0.0

    def may_acquire(self, lease: Lease, now_s: float, *, locked: bool) -> bool:
        """Decide whether a lease may be acquired at a monotonic time; `locked`: this standby has the file lock."""
        if not lease.holder:
            return True
        if locked and lease.locked and lease.machine == self._machine:
            return True
        if self._last != (lease.epoch, lease.beat):
            self._last = (lease.epoch, lease.beat)
            self._since_s = now_s
        return now_s - self._since_s >= self._takeover_s
