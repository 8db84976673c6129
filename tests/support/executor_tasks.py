"""Small tasks for executors of processes and of clusters; workers import this file."""

import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import DataError
from service.executors.executor import executor_in_use

Table = NDArray[np.float64]


def total(table: Table, start: int, stop: int) -> float:
    return float(table[start:stop].sum())


def joined(parts: list[Table]) -> Table:
    return np.concatenate(parts)


def squared(table: Table) -> Table:
    assert table.flags.writeable
    return table * table


def halves(table: Table) -> tuple[Table, Table, int]:
    half = table.size // 2
    return table[:half], table[half:], half


def killed_once(mark: str, value: int, known: str | None = None) -> tuple[int, bool]:
    """End this process the first time, but not before the file `known` is there; tell of the executor the second."""
    path = Path(mark)
    if not path.exists():
        path.touch()
        while known is not None and not Path(known).exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return value, executor_in_use() is None


def killed_always() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused(row: int) -> None:
    raise DataError(f"Row {row} is bad.")


def broken() -> float:
    return 1 / 0


def squared_on_both(table: Table, marks: str, task: int) -> Table:
    """Return when two tasks are under way, which one worker for each machine makes one on each."""
    path = Path(marks)
    (path / f"{task}").write_text(socket.gethostname())
    while len(list(path.iterdir())) < 2:
        time.sleep(0.01)
    return table * table


def waiting_for_a_loss(marks: str, task: int) -> str:
    """Return where this runs when a machine is lost."""
    path = Path(marks)
    (path / f"{task}").write_text(socket.gethostname())
    while not (path / "lost").exists():
        time.sleep(0.01)
    return socket.gethostname()


def begun_with_others(marks: str, task: int, n_others: int) -> str:
    """Return Ray's id of this machine when as many tasks are under way."""
    import ray

    path = Path(marks)
    node: str = ray.get_runtime_context().get_node_id()
    (path / f"{task}").write_text(node)
    while len(list(path.iterdir())) < n_others:
        time.sleep(0.01)
    return node
