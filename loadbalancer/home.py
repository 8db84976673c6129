"""The home directory: the process that holds it, and the processes that a killed holder left behind.

Invariant: at most one process at a time supervises a home directory. It holds run/lock, whose text is its pid, with
flock, which the kernel releases when it dies. Before it starts a part, no process of an earlier supervisor is left.
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
from loadbalancer.supervision.processes import group_members, signal_group

_KILL_TIMEOUT_S = 10.0
# Longer than `holder_pid` keeps its shared lock.
_LOCK_TIMEOUT_S = 0.2
_POLL_EVERY_S = 0.02


@contextlib.contextmanager
def held(home: Path) -> Iterator[None]:
    """Create the home directory and hold it; on exit run/ is removed and state stays.

    Raises:
        AlreadyRunning: Another process holds it.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    run = home / "run"
    lock = _acquire(run / "lock")
    try:
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        # Before the lock is released, or it would remove files of the next holder. A roster that is still there names
        # processes that may still run, which the next holder ends.
        if not roster.path_in(home).exists():
            unix_sockets.remove(home)
            shutil.rmtree(run, ignore_errors=True)
        os.close(lock)


def holder_pid(home: Path) -> int:
    """Return the process that supervises a home directory.

    Raises:
        NotRunning: There is none.
    """
    path = home / "run" / "lock"
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(path)
        finally:
            os.close(descriptor)
    raise NotRunning(f"Nothing runs in {home}; start it with `recollect up`.")


def end_leftovers(home: Path, notify: Callable[[str], None], *, grace_s: float) -> None:
    """End the processes that a killed supervisor left behind in a held home, and wait until they are gone.

    `grace_s` is the time for a graceful stop, which the kernel requested when their supervisor died.

    Raises:
        LeftoverAlive: One of them cannot be ended.
    """
    groups = {row.pid: row for row in roster.read(home) if row.pid is not None}
    deadline_s = time.monotonic() + grace_s
    alive = _alive(groups)
    if alive:
        names = ", ".join(groups[pid].name for pid in alive)
        notify(f"An earlier run was killed; ending its processes: {names}.")
    for pid in alive:
        signal_group(pid, signal.SIGTERM)
        signal_group(pid, signal.SIGCONT)
    for pid in _wait_until_gone(groups, deadline_s):
        signal_group(pid, signal.SIGKILL)
    if alive := _wait_until_gone(groups, time.monotonic() + _KILL_TIMEOUT_S):
        names = ", ".join(f"{groups[pid].name} (process {pid})" for pid in alive)
        raise LeftoverAlive(f"Processes of an earlier run cannot be ended: {names}.")
    roster.remove(home)


def _wait_until_gone(groups: dict[int, roster.Row], deadline_s: float) -> list[int]:
    """Return the leaders of the groups that are still alive at the deadline."""
    while (alive := _alive(groups)) and time.monotonic() < deadline_s:
        time.sleep(_POLL_EVERY_S)
    return alive


def _alive(groups: dict[int, roster.Row]) -> list[int]:
    return [pid for pid, row in groups.items() if group_members(pid, row.output)]


def _acquire(path: Path) -> int:
    deadline_s = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _is_locked(descriptor, path):
                return descriptor
            os.close(descriptor)
        if time.monotonic() > deadline_s:
            raise AlreadyRunning(f"Recollect is already running in {path.parents[1]} (process {_pid_in(path)}).")
        time.sleep(_POLL_EVERY_S)


def _is_locked(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The previous holder may have removed the file between open and lock.
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    return False


def _pid_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
