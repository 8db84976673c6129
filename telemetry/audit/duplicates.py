"""Ids that were archived more than once.

Invariant: no double is overlooked. `Ids` remembers eight bytes for each id, so it may suspect one that is alone;
`Doubles` looks at the suspects again, by their whole ids, and accuses nobody who is alone. Pure.
"""

from array import array
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from itertools import pairwise

from telemetry.audit.event_outline import Id, Line


class Ids:
    """Which ids may have been archived more than once; sure only that all others were not."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, line: Line) -> None:
        """Take note of an archived line's ids."""
        for key in line.ids:
            self._hashes.append(hash(key))

    def suspects(self) -> set[int]:
        """Return the hashes that occur more than once."""
        # Here, because only the audit needs it, and a consumer starts faster without.
        import numpy as np

        hashes = np.frombuffer(self._hashes, dtype=np.int64).copy()
        hashes.sort()
        return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


class Doubles:
    """Ids that were archived more than once, looked at closely.

    Args:
        suspects: What `Ids` found.
        window_days: Feedback that comes again later than this is another event.
    """

    def __init__(self, suspects: Collection[int], window_days: int) -> None:
        self._suspects = suspects
        self._window = timedelta(days=window_days)
        self._found: dict[Id, list[tuple[Line, bool]]] = {}

    def add(self, line: Line, *, inside: bool) -> None:
        """Take note of an archived line, if it may be one too many."""
        for key in line.ids:
            if hash(key) in self._suspects:
                self._found.setdefault(key, []).append((line, inside))

    def surplus(self) -> Iterator[tuple[str, Line]]:
        """Tell what is too much.

        Yields:
            An id and a line that should not be there: not the first one, and not one of the same number as another.
        """
        for (of_class, _, name, _), found in self._found.items():
            # The same number twice is counted as such already.
            distinct = {(line.producer, line.epoch, line.seq): (line, inside) for line, inside in found}
            in_order = sorted(distinct.values(), key=lambda one: one[0].received_at)
            for (before, _), (line, inside) in pairwise(in_order):
                late = of_class == "feedback" and _time(line) - _time(before) > self._window
                if inside and not late:
                    yield name, line


def _time(line: Line) -> datetime:
    return datetime.fromisoformat(line.received_at)
