"""What all workers of a command do, as rows and lines (pure)."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Importing it loads numpy, which commands without workers do not need.
    from service.executors.executor import WorkerEvent
    from service.executors.machine import Machine


@dataclass
class WorkerRow:
    """A worker.

    Attributes:
        name: Its name.
        machine: Its machine.
        pid: Its process.
        state: As in `WorkerEvent`.
        doing: Its stage and the number of its task, from 1; empty if it has none.
        n_done: The tasks that it has done.
        n_deaths: How often a process of this name died.
    """

    name: str
    machine: "Machine"
    pid: int
    state: str
    doing: str = ""
    n_done: int = 0
    n_deaths: int = 0


class WorkerTable:
    """Follows the events of workers."""

    def __init__(self) -> None:
        self._rows: dict[str, WorkerRow] = {}
        self._stage = ""
        self._n_done = 0
        self._n_tasks = 0

    def update(self, event: "WorkerEvent") -> str | None:
        """Note an event; returns a line for the reader if it is a loss."""
        row = self._rows.setdefault(event.worker, WorkerRow(event.worker, event.machine, event.pid, event.state))
        row.n_done += row.state == "working" and event.state == "idle"
        row.machine, row.pid, row.state = event.machine, event.pid, event.state
        row.doing = "" if event.task is None else f"{event.stage} {event.task + 1}".strip()
        self._stage, self._n_done, self._n_tasks = event.stage, event.n_done, event.n_tasks
        names = self._machine_names()
        if event.state == "left":
            del self._rows[event.worker]
        if event.state != "died":
            return None
        row.n_deaths += 1
        task = "" if event.task is None else f" in task {event.task + 1} of {event.n_tasks}"
        return f"{event.worker} (process {event.pid} on {names[event.machine]}) died{task}; its work is done again"

    def summary(self) -> str:
        """Return the stage, its tasks and the workers in one line."""
        n_machines = len({row.machine for row in self._rows.values()})
        n_working = sum(row.state == "working" for row in self._rows.values())
        stage = f"{self._stage}: " if self._stage else ""
        tasks = f"{self._n_done:,} of {_counted(self._n_tasks, 'task')}"
        machines = f" on {_counted(n_machines, 'machine')}" if n_machines > 1 else ""
        return f"{stage}{tasks}; {_counted(len(self._rows), 'worker')}{machines}, {n_working:,} at work"

    def rows(self, most: int) -> tuple[list[str], list[list[str]]]:
        """Return a heading and the rows of all workers; of all machines instead if there are more workers than `most`.

        A machine's row has how many of its workers do what.
        """
        names = self._machine_names()
        rows = sorted(self._rows.values(), key=_place)
        if len(rows) <= most:
            heading = ["machine", "worker", "process", "state", "task", "done", "deaths"]
            return heading, [
                [
                    names[row.machine],
                    row.name,
                    str(row.pid),
                    row.state,
                    row.doing,
                    f"{row.n_done:,}",
                    _some(row.n_deaths),
                ]
                for row in rows
            ]
        heading = ["machine", "workers", "at work", "done", "deaths"]
        counts: dict[Machine, Counter[str]] = {}
        for row in rows:
            count = counts.setdefault(row.machine, Counter())
            count.update(workers=1, working=row.state == "working", done=row.n_done, deaths=row.n_deaths)
        return heading, [
            [names[machine], f"{n['workers']:,}", f"{n['working']:,}", f"{n['done']:,}", _some(n["deaths"])]
            for machine, n in counts.items()
        ]

    def _machine_names(self) -> "dict[Machine, str]":
        """Return what each machine is called: with its address where another one has the same host name."""
        machines = {row.machine for row in self._rows.values()}
        n_of_name = Counter(machine.name for machine in machines)
        return {
            machine: machine.name if n_of_name[machine.name] == 1 else f"{machine.name} ({machine.address})"
            for machine in machines
        }

    def __len__(self) -> int:
        return len(self._rows)


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _some(n: int) -> str:
    return f"{n:,}" if n else ""


def _place(row: WorkerRow) -> tuple[str, str, list[tuple[int, str]]]:
    return row.machine.name, row.machine.address or "", _natural(row.name)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts worker-2 before worker-10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
