"""The home directory: who holds it, and what an earlier holder left behind.

Invariant: at most one process at a time supervises in a home directory. It holds run/lock (flock, so that the kernel
lets go when it dies), whose text is its process number; before it starts anything, nothing of an earlier one runs.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from loadbalancer import roster, unix_sockets
from loadbalancer.errors import AlreadyRunning, LeftoverAlive, NotRunning
from loadbalancer.processes import group_members, signal_group

_KILLED_WITHIN_S = 10.0
# Long enough for one who only looks (holder_pid) to let go.
_LOCKED_WITHIN_S = 0.2
_LOOK_EVERY_S = 0.02


@contextlib.contextmanager
def held(home: Path) -> Iterator[None]:
    """Make the home directory and hold it; on leaving, run/ goes, and state stays.

    Raises:
        AlreadyRunning: Another process holds it.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    run = home / "run"
    lock = _locked(run / "lock")
    try:
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        # Before the lock is let go: what the next holder makes must not be removed. Rows are left only if their
        # processes are, and then the next holder needs them.
        if not roster.path_in(home).exists():
            unix_sockets.remove(home)
            shutil.rmtree(run, ignore_errors=True)
        os.close(lock)


def holder_pid(home: Path) -> int:
    """Return the process that supervises in a home directory.

    Raises:
        NotRunning: There is none.
    """
    path = home / "run" / "lock"
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _pid_in(path)
        finally:
            os.close(descriptor)
    raise NotRunning(f"Nothing runs in {home}; start it with: recollect up")


def end_leftovers(home: Path, tell: Callable[[str], None], *, grace_s: float) -> None:
    """End the processes that a killed supervisor left behind, and wait until they are gone.

    Args:
        home: The home directory, held by the caller.
        tell: Told about each part that is found.
        grace_s: How long they may take in good order; the kernel told them to stop when their supervisor died.

    Raises:
        LeftoverAlive: One of them cannot be ended.
    """
    groups = {row.pid: row for row in roster.read(home) if row.pid is not None}
    deadline_s = time.monotonic() + grace_s
    left = _alive(groups)
    if left:
        tell("an earlier run was killed; ending what it left: " + ", ".join(groups[pid].name for pid in left))
    for pid in left:
        signal_group(pid, signal.SIGTERM)
        signal_group(pid, signal.SIGCONT)
    left = _wait(groups, deadline_s)
    for pid in left:
        signal_group(pid, signal.SIGKILL)
    left = _wait(groups, time.monotonic() + _KILLED_WITHIN_S)
    if left:
        names = ", ".join(f"{groups[pid].name} (process {pid})" for pid in left)
        raise LeftoverAlive(f"An earlier run left processes that cannot be ended: {names}")
    roster.remove(home)


def _wait(groups: dict[int, roster.Row], deadline_s: float) -> list[int]:
    while (left := _alive(groups)) and time.monotonic() < deadline_s:
        time.sleep(_LOOK_EVERY_S)
    return left


def _alive(groups: dict[int, roster.Row]) -> list[int]:
    return [pid for pid, row in groups.items() if group_members(pid, row.output)]


def _locked(path: Path) -> int:
    deadline_s = time.monotonic() + _LOCKED_WITHIN_S
    while True:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _is_ours(descriptor, path):
                return descriptor
            os.close(descriptor)
        if time.monotonic() > deadline_s:
            raise AlreadyRunning(f"Recollect is already running in {path.parents[1]} (process {_pid_in(path)})")
        time.sleep(_LOOK_EVERY_S)


def _is_ours(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who held it may have removed the file between our open and our lock.
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    return False


def _pid_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
