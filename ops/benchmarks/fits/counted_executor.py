"""A local executor that counts what its tasks exchange with the process of the fit."""

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from service.executors.executor import Ref, WorkerEvent
from service.executors.local_executor import FileRef, LocalExecutor

T = TypeVar("T")


@dataclass
class StageCount:
    """What the tasks of a stage took.

    Attributes:
        n_tasks: The tasks, all calls of the stage together.
        seconds: The time until they were done, waiting and exchange included.
        result_bytes: What they returned.
    """

    n_tasks: int = 0
    seconds: float = 0.0
    result_bytes: int = 0


class CountedExecutor(LocalExecutor):
    """A `LocalExecutor` with counts.

    Attributes:
        put_bytes: What was put.
        stages: The counts of each stage.
        pids: The processes that worked.
    """

    def __init__(self, n_workers: int, folder: Path) -> None:
        super().__init__(n_workers, folder, self._note)
        self.pids: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Count from 0."""
        self.put_bytes = 0
        self.stages: dict[str, StageCount] = {}

    def put(self, value: T) -> FileRef[T]:
        """Put a value, and count it."""
        self.put_bytes += size_bytes(value)
        return super().put(value)

    def run(self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = "") -> list[Ref[T]]:
        """Do tasks, and count them."""
        started_s = time.perf_counter()
        refs = super().run(function, tasks, stage=stage)
        count = self._count(stage, len(tasks), time.perf_counter() - started_s)
        count.result_bytes += sum(size_bytes(self.get(ref)) for ref in refs)
        return refs

    def run_split(
        self,
        function: Callable[..., tuple[Any, ...]],
        tasks: Sequence[tuple[Any, ...]],
        n_parts: int,
        *,
        stage: str = "",
    ) -> list[tuple[Ref[Any], ...]]:
        """Do tasks, and count them."""
        started_s = time.perf_counter()
        refs = super().run_split(function, tasks, n_parts, stage=stage)
        count = self._count(stage, len(tasks), time.perf_counter() - started_s)
        count.result_bytes += sum(size_bytes(self.get(ref)) for parts in refs for ref in parts)
        return refs

    def completed(
        self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, stage: str = ""
    ) -> Iterator[tuple[int, T]]:
        """Do tasks, and count them."""
        started_s, result_bytes = time.perf_counter(), 0
        for task, value in super().completed(function, tasks, stage=stage):
            result_bytes += size_bytes(value)
            yield task, value
        self._count(stage, len(tasks), time.perf_counter() - started_s).result_bytes += result_bytes

    def peak_bytes(self) -> int:
        """Return the most resident memory that a living worker has had, mapped values included."""
        return max(map(_peak_bytes, self.pids), default=0)

    def cpu_s(self) -> float:
        """Return the processor time of the living workers since they started."""
        return sum(map(cpu_s, self.pids))

    def _count(self, stage: str, n_tasks: int, seconds: float) -> StageCount:
        count = self.stages.setdefault(stage, StageCount())
        count.n_tasks += n_tasks
        count.seconds += seconds
        return count

    def _note(self, event: WorkerEvent) -> None:
        self.pids.add(event.pid)


def size_bytes(value: object) -> int:
    """Return the bytes of a value as it is sent, without copying its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(head) + sum(buffer.raw().nbytes for buffer in buffers)


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far; 0 of one that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return 0.0
    # The name of the program, in parentheses, may hold spaces; proc(5) has the order of the rest.
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
