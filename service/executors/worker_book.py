"""Which workers an executor has and what they do, from the messages of tasks (pure).

A worker is known by its machine and process. It gets a name with its first task; a process that takes the place of
another one on its machine takes over the name.
"""

import itertools
from dataclasses import dataclass

from service.executors.executor import Watch, WorkerEvent, WorkerState
from service.executors.machine import Machine


@dataclass(frozen=True)
class Place:
    """A process on a machine."""

    machine: Machine
    pid: int


class WorkerBook:
    """Turns what is known of tasks into events of workers.

    Args:
        watch: Called with each change of a worker.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._names: dict[Place, str] = {}
        self._places: dict[int, Place] = {}
        self._done: set[int] = set()
        self._stage = ""
        self._n_tasks = 0

    def begin(self, stage: str, n_tasks: int) -> None:
        """Begin a stage; no task is under way."""
        self._stage, self._n_tasks = stage, n_tasks
        self._places.clear()
        self._done.clear()

    def started(self, task: int, place: Place) -> None:
        """A worker has begun a task. If another one had it, that one died."""
        if task in self._done:
            return
        former = self._places.get(task)
        if former is not None and former != place:
            self.died(task)
        self._name(place)
        self._places[task] = place
        self._report(place, "working", task)

    def done(self, task: int, place: Place) -> None:
        """A task is done; the message that it had begun there may be late or lost."""
        if self._places.get(task) != place:
            self.started(task, place)
        self._done.add(task)
        if self._places.pop(task, None) is not None:
            self._report(place, "idle", None)

    def died(self, task: int) -> None:
        """The worker of a task died, if one is known."""
        place = self._places.pop(task, None)
        if place is not None:
            self._report(place, "died", task)
            del self._names[place]

    def left(self) -> None:
        """The workers are not needed any more."""
        for place in list(self._names):
            self._report(place, "left", None)
        self._names.clear()

    def _name(self, place: Place) -> None:
        if place in self._names:
            return
        working = set(self._places.values())
        replaced = next(
            (known for known in self._names if known.machine == place.machine and known not in working), None
        )
        if replaced is not None:
            self._names[place] = self._names.pop(replaced)
            return
        taken = set(self._names.values())
        self._names[place] = next(name for n in itertools.count(1) if (name := f"worker-{n}") not in taken)

    def _report(self, place: Place, state: WorkerState, task: int | None) -> None:
        event = WorkerEvent(
            self._names[place], place.machine, place.pid, state, self._stage, task, len(self._done), self._n_tasks
        )
        self._watch(event)
