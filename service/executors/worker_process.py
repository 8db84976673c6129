"""A worker process of this machine: it starts without the locks of its parent, and never outlives it."""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def spawn(target: Callable[..., None], args: tuple[Any, ...], name: str) -> tuple[BaseProcess, Connection]:
    """Start `target(connection, *args)` in a process; returns it, and the other end of its connection."""
    # A forked child would inherit the locks of this process's threads, and numba's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=target, args=(child_end, *args), name=name, daemon=True)
    # The child inherits the mask, and ignores Ctrl-C from its first instruction: it reaches the parent alone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    child_end.close()
    return process, parent_end


def exit_with_parent(folder: Path) -> threading.Thread:
    """End this process when its parent dies, however that happens, and remove the parent's folder then.

    Returns:
        The thread that watches.
    """
    watch = threading.Thread(target=_wait_for_parent, args=(folder,), daemon=True)
    watch.start()
    return watch


def death_reason(exit_code: int | None) -> str:
    """Return a sentence on why a process ended."""
    if exit_code == -signal.SIGKILL:
        return "The process was killed, most likely for want of memory."
    return f"The process ended with exit code {exit_code}."


def _wait_for_parent(folder: Path) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
