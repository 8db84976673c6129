"""Failpoints: named moments at which a drill may kill, freeze or fail the process.

Invariant: none is active unless somebody asked for it by name, and a name that is not in the table is refused.
A failpoint acts once, at its nth hit. For drills and tests; production has no use for it.
"""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from telemetry.errors import FailpointError

FAILPOINTS: Final[Mapping[str, str]] = {
    "spool.ringed": "A served event is in the memory-mapped ring.",
    "spool.written": "A group of events is written to its segment and not yet synced.",
    "spool.synced": "A group of events is synced and nobody has been told.",
    "spool.rotated": "A new segment is there and holds nothing.",
    "shipper.sending": "A batch is about to be sent to Redis.",
    "shipper.confirmed": "Redis has confirmed a batch and the cursor has not moved.",
    "spool.released": "A segment that the archive covers is deleted.",
    "gap.due": "A stream with a gap is about to be removed.",
    "gap.removed": "A stream with a gap is removed, and its producer has not begun it anew.",
    "consumer.read": "Entries are delivered and nothing has been done with them.",
    "consumer.judged": "It is decided what becomes of each event and nothing is written.",
    "consumer.appended": "Lines are written and synced and the catalogue does not know of them.",
    "consumer.committed": "The catalogue's transaction is done and nobody has been told.",
    "consumer.acknowledged": "Redis has been told and the sinks have not.",
    "consumer.informed": "The sinks have been told and the round is over.",
    "retention.read": "The numbers of a date that is to go are read and nothing has changed.",
    "retention.committed": "A date's files do not count any more and are still there.",
}


def _fail(name: str) -> None:
    raise FailpointError(f"Failpoint {name} was asked to fail here.")


_ACTIONS: Final[Mapping[str, Callable[[str], None]]] = {
    "kill": lambda _name: os.kill(os.getpid(), signal.SIGKILL),
    "pause": lambda _name: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": _fail,
}


class Failpoints:
    """What a process was asked to suffer; without arguments, nothing.

    Args:
        wanted: By name: the action, and the hit at which it happens, from 1.
    """

    def __init__(self, wanted: Mapping[str, tuple[str, int]] | None = None) -> None:
        self._left = {name: (_ACTIONS[action], nth) for name, (action, nth) in (wanted or {}).items()}

    @classmethod
    def parse(cls, text: str | None) -> "Failpoints":
        """Read `name:kill|pause|raise[:nth]`, several separated by commas.

        Args:
            text: What was asked for; None or blank for nothing.

        Returns:
            The failpoints.

        Raises:
            FailpointError: The text names no failpoint or action of ours, or nth is not a number from 1.
        """
        wanted = {}
        for part in (text or "").split(","):
            if not part.strip():
                continue
            name, _, rest = part.strip().partition(":")
            action, _, nth = rest.partition(":")
            if name not in FAILPOINTS:
                raise FailpointError(f"{name!r} is not a failpoint. The failpoints are {', '.join(FAILPOINTS)}.")
            if action not in _ACTIONS:
                raise FailpointError(f"Failpoint {name} can {', '.join(_ACTIONS)}, not {action!r}.")
            if nth and not (nth.isascii() and nth.isdecimal() and int(nth) >= 1):
                raise FailpointError(f"The hit of failpoint {name} must be a number from 1, not {nth!r}.")
            wanted[name] = (action, int(nth or 1))
        return cls(wanted)

    def hit(self, name: str) -> None:
        """Say that the process is at a failpoint.

        Args:
            name: Which one.

        Raises:
            FailpointError: That is what was asked for.
        """
        # The usual case costs one look into an empty table.
        if name not in self._left:
            return
        act, left = self._left.pop(name)
        if left > 1:
            self._left[name] = (act, left - 1)
        else:
            act(name)
