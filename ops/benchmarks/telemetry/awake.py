"""Keeps a core awake.

On an idle machine a process that wakes often is charged for waking the core, several times the cost of its work. A
machine that serves is not idle; a process of the lowest priority reproduces that.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from ops.console.foreground import dies_with


@contextlib.contextmanager
def awake(core: int) -> Iterator[None]:
    """Keep a core busy with a process of the lowest priority."""
    process = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        preexec_fn=dies_with(os.getpid()),  # noqa: PLW1509  # it takes no lock
    )
    try:
        os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        process.kill()
        process.wait()
