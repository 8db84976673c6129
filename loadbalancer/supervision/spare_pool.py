"""Preloaded processes, one of which becomes a Python part that exited."""

from collections.abc import Callable, Sequence

from loadbalancer.supervision.processes import Child, Command, Spare

# Loading takes a core, so spares start one at a time.
_START_EVERY_S = 2.0


class SparePool:
    """The spares of one installation.

    Args:
        argv: The program of a spare; see `Spare`.
        size: The number of spares; 0 for none.
        notify: Called with a sentence if one cannot be started.
    """

    def __init__(self, argv: Sequence[str], size: int, notify: Callable[[str], None]) -> None:
        self._argv = argv
        self._size = size
        self._notify = notify
        self._spares: list[Spare] = []
        self._next_start_s = 0.0

    @property
    def pids(self) -> set[int]:
        """The pids of the waiting spares."""
        return {spare.pid for spare in self._spares}

    def become(self, command: Command) -> Child | None:
        """Turn a spare into a part; return None if no spare can become it."""
        while command.arguments and self._spares:
            child = self._spares.pop(0).become(command)
            if child is not None:
                return child
        return None

    def replenish(self, command: Command, now_s: float) -> None:
        """Start at most one spare, with the environment of this command."""
        if len(self._spares) >= self._size or now_s < self._next_start_s:
            return
        self._next_start_s = now_s + _START_EVERY_S
        try:
            self._spares.append(Spare(self._argv, command.environ, command.output.with_name("spare.out")))
        except OSError as error:
            self._notify(f"No spare process can be started: {error}.")

    def discard(self) -> None:
        """End all spares."""
        while self._spares:
            self._spares.pop().discard()
