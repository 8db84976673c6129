"""Keeps a core from sleeping.

On an idle machine a process that wakes often is charged for the waking of the core, several times what its own work
costs. A machine that serves is not idle; something of the lowest priority, which gives way to everything, makes this
one so.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from ops.console.foreground import dies_with


@contextlib.contextmanager
def awake(core: int) -> Iterator[None]:
    """Keep a core busy with what gives way to everything.

    Args:
        core: Its number.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        preexec_fn=dies_with(os.getpid()),  # noqa: PLW1509  # it takes no lock of another thread
    )
    try:
        os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        process.kill()
        process.wait()
