"""What becomes of the workers of an executor, and a way to kill one in the middle of a task."""

import os
import signal
from collections.abc import Callable

from service.executors.executor import WorkerEvent


class WatchedWorkers:
    """The events of the workers of this machine, which a test may kill."""

    def __init__(self) -> None:
        self.events: list[WorkerEvent] = []
        self._kills: list[Callable[[WorkerEvent], bool]] = []

    def watch(self, event: WorkerEvent) -> None:
        """Note an event, and kill the worker if a test has asked for it."""
        self.events.append(event)
        if event.state == "died":
            self._kills = [kills for kills in self._kills if not kills(event)]
        elif event.state == "working" and any(kills(event) for kills in self._kills):
            os.kill(event.pid, signal.SIGKILL)

    def kill_when(self, kills: Callable[[WorkerEvent], bool]) -> None:
        """Kill a worker whose task fits, as it begins; a later one, too, if a short task ends before the signal."""
        self._kills.append(kills)

    def deaths(self) -> list[WorkerEvent]:
        """Return the workers that died in the middle of a task since `events` was cleared."""
        return [event for event in self.events if event.state == "died"]
