"""When a standby may take the archive's lease.

Invariant: a lease is taken only if its holder gave it back, or died on this machine (its file lock is free),
or did not move its heartbeat for `takeover_s` of our own monotonic clock. No wall clock decides anything,
so no clock jump can.

Taking it wrongly would still lose nothing: every commit checks the lease (`catalogue.py`).
"""

import fcntl
import os
import platform
from pathlib import Path

from telemetry.catalogue.catalogue import Lease

_LOCK = "holder.lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_machine() -> str:
    """Name this machine and its current boot: file locks only mean something within it."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


class HolderLock:
    """The file lock of a living holder; the kernel frees it with the process.

    Args:
        root: The archive's directory.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / _LOCK
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Try to get the lock, or keep it.

        Returns:
            Whether we have it.
        """
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
        """Give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class LeaseWatch:
    """A standby's view of the lease.

    Args:
        takeover_s: How long the heartbeat must stand still.
        machine: Where we run.
    """

    def __init__(self, takeover_s: float, machine: str) -> None:
        self._takeover_s = takeover_s
        self._machine = machine
        self._last: tuple[int, int] | None = None
        self._since_s = 0.0

    def may_take(self, lease: Lease, now_s: float, *, locked: bool) -> bool:
        """Look at the lease.

        Args:
            lease: The row as it is now.
            now_s: Our monotonic clock.
            locked: Whether we have the holder's file lock.

        Returns:
            Whether it may be taken.
        """
        if not lease.holder:
            return True
        if locked and lease.locked and lease.machine == self._machine:
            return True
        if self._last != (lease.epoch, lease.beat):
            self._last = (lease.epoch, lease.beat)
            self._since_s = now_s
        return now_s - self._since_s >= self._takeover_s
