"""Processes that stand still: how Linux shows it, how long it lasts, and how one of them is ended.

A process is frozen if none of its threads has run for a time: it was stopped by a signal or a debugger, or its control
group is frozen. One that waits for its disk is not frozen: it goes on by itself, and a signal would not reach it.
"""

import os
import select
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_WAITS_FOR_DISK: Final = "D"
_SWITCHES: Final = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
# In /proc/<pid>/stat, counted after the name of the program.
_UTIME, _STIME, _STARTED = 11, 12, 19
# A killed process ends within milliseconds, unless its last system call takes longer.
_END_S: Final = 1.0


class Activity(NamedTuple):
    """A mark of a process that changes whenever one of its threads runs.

    Attributes:
        started: When it began, in clock ticks since the machine did: a pid that is used again has another.
        cpu_ticks: The processor time of all threads.
        switches: How often they were given a processor or left it.
    """

    started: int
    cpu_ticks: int
    switches: int


def activity_of(pid: int) -> Activity | None:
    """Read a process's mark; None if it is gone, waits for its disk, or may not be looked at."""
    process = Path("/proc", str(pid))
    try:
        fields = _stat(process)
        threads = list((process / "task").iterdir())
        if any(_stat(thread)[0] == _WAITS_FOR_DISK for thread in threads):
            return None
        switches = sum(_switches(thread) for thread in threads)
    except (OSError, IndexError, ValueError):
        return None
    return Activity(int(fields[_STARTED]), int(fields[_UTIME]) + int(fields[_STIME]), switches)


def _stat(process: Path) -> list[str]:
    # The name of the program may hold spaces and parentheses.
    return (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _switches(thread: Path) -> int:
    lines = (thread / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    return sum(int(line.partition(":")[2]) for line in lines if line.startswith(_SWITCHES))


class FrozenWatch:
    """Which of some processes have stood still, and for how long.

    Args:
        patience_s: Those that stood still for so long are frozen.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since_s: dict[tuple[int, Activity], float] = {}

    def look(self, seen: Mapping[int, Activity], now_s: float) -> tuple[dict[int, Activity], bool]:
        """Compare processes with the last look at them.

        Args:
            seen: By pid, those to watch; one that is left out is forgotten.
            now_s: Monotonic time.

        Returns:
            The frozen ones, and whether any has stood still since the last look.
        """
        before = self._since_s
        self._since_s = {known: before.get(known, now_s) for known in seen.items()}
        frozen = {pid: mark for (pid, mark), since_s in self._since_s.items() if now_s - since_s >= self._patience_s}
        return frozen, any(known in before for known in self._since_s)


def end_process(pid: int, is_the_one: Callable[[], bool]) -> bool:
    """Kill a process and wait a moment for its end.

    Args:
        is_the_one: Asked once more when the pid cannot pass to another process unnoticed.

    Returns:
        Whether it was killed; False if it is another one by now, is gone, or belongs to another user.
    """
    with suppress(OSError):
        # It names the process, not the number: a successor with the same pid gets no signal.
        descriptor = os.pidfd_open(pid)
        try:
            if not is_the_one():
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], _END_S)
        finally:
            os.close(descriptor)
        return True
    return False
