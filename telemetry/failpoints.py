"""Failpoints: named moments at which a drill kills, freezes or fails the process.

Invariant: a failpoint is active only if it was requested by name, and an unknown name is refused. It acts once, at its
nth hit. For drills and tests; production has no use for it.
"""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from telemetry.errors import FailpointError

FAILPOINTS: Final[Mapping[str, str]] = {
    "spool.ringed": "A served event is in the memory-mapped ring.",
    "spool.written": "A group of events is written to its segment and not yet synced.",
    "spool.synced": "A group of events is synced and no caller is answered yet.",
    "spool.rotated": "A new segment exists and is empty.",
    "shipper.sending": "A batch is about to be sent to Redis.",
    "shipper.confirmed": "Redis has confirmed a batch and the shipper has not noted it.",
    "spool.released": "A segment that the archive covers is deleted.",
    "gap.due": "A stream with a gap is about to be removed.",
    "gap.removed": "A stream with a gap is removed, and its producer has not begun it again.",
    "consumer.read": "Entries are delivered and nothing has been done with them.",
    "consumer.planned": "The commit of each event is planned and nothing is written.",
    "consumer.appended": "Lines are written and synced and the catalogue does not have them.",
    "consumer.committing": "The catalogue's transaction is open: its lock is held, and nothing counts.",
    "consumer.committed": "The catalogue's transaction is done and Redis is not notified yet.",
    "consumer.acknowledged": "Redis is notified and the sinks are not.",
    "consumer.finished": "The sinks are notified and the round is over.",
    "live.restored": "The live state is read from the archive and no snapshot has it.",
    "live.layered": "The files of a state snapshot are written and no manifest names them.",
    "live.saved": "A state snapshot is saved and the files that it replaces still exist.",
    "live.begun": "A generation of the feed has begun and the publisher has not noted it.",
    "live.published": "An entry is in the feed and the publisher has not noted it.",
    "generated.written": "A file of lists is written again without a user, and nothing names it.",
    "generated.planned": "The manifest of lists with that file is written, and the old one counts.",
    "generated.renamed": "That file has taken the old one's place, and the old manifest counts.",
    "generated.replaced": "That file and its manifest count, and other files may hold the user.",
    "retention.read": "The numbers of a date to remove are read and nothing has changed.",
    "retention.committed": "A date's files do not count any more and still exist.",
}


def _fail(name: str) -> None:
    raise FailpointError(f"Failpoint {name} was asked to fail here.")


_ACTIONS: Final[Mapping[str, Callable[[str], None]]] = {
    "kill": lambda _name: os.kill(os.getpid(), signal.SIGKILL),
    "pause": lambda _name: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": _fail,
}


class Failpoints:
    """The active failpoints of a process: by name the action, and the hit at which it happens, from 1."""

    def __init__(self, requested: Mapping[str, tuple[str, int]] | None = None) -> None:
        self._left = {name: (_ACTIONS[action], nth) for name, (action, nth) in (requested or {}).items()}

    @classmethod
    def parse(cls, text: str | None) -> "Failpoints":
        """Parse `name:kill|pause|raise[:nth]`, several separated by commas; None or blank for none.

        Raises:
            FailpointError: The text names an unknown failpoint or action, or nth is not a number from 1.
        """
        requested = {}
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
            requested[name] = (action, int(nth or 1))
        return cls(requested)

    def hit(self, name: str) -> None:
        """Act if the failpoint with this name is active.

        Raises:
            FailpointError: The action is to raise.
        """
        # In production this is one look-up in an empty table.
        if name not in self._left:
            return
        act, left = self._left.pop(name)
        if left > 1:
            self._left[name] = (act, left - 1)
        else:
            act(name)
