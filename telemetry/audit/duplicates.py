"""Finds ids that were archived more than once.

Invariant: no duplicate is missed. `IdHashes` keeps eight bytes for each id, so it may suspect unique ids;
`DuplicateFinder` compares the whole ids of the suspects. Pure.
"""

from array import array
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from itertools import pairwise

from telemetry.audit.event_outline import EventId, EventOutline


class IdHashes:
    """The hashes of all archived ids."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, event: EventOutline) -> None:
        """Add an archived event's ids."""
        for key in event.ids:
            self._hashes.append(hash(key))

    def repeated(self) -> set[int]:
        """Return the hashes that occur more than once."""
        # Only the audit needs numpy; a consumer starts faster without it.
        import numpy as np

        hashes = np.frombuffer(self._hashes, dtype=np.int64).copy()
        hashes.sort()
        return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


class DuplicateFinder:
    """Compares the ids that `IdHashes` suspects.

    Args:
        suspects: Hashes that occur more than once.
        window_days: Feedback or an item change that comes again later than this is another event.
    """

    def __init__(self, suspects: Collection[int], window_days: int) -> None:
        self._suspects = suspects
        self._window = timedelta(days=window_days)
        self._found: dict[EventId, list[tuple[EventOutline, bool]]] = {}

    def add(self, event: EventOutline, *, inside: bool) -> None:
        """Add an archived event, if its id is suspect; `inside` is whether it belongs to the audited period."""
        for key in event.ids:
            if hash(key) in self._suspects:
                self._found.setdefault(key, []).append((event, inside))

    def duplicates(self) -> Iterator[tuple[str, EventOutline]]:
        """Yield each id and event inside the period that follows another one of that id and another number."""
        for (of_class, _, name, _), found in self._found.items():
            # A number that occurs twice is counted by the reconciliation.
            distinct = {(event.producer, event.epoch, event.seq): (event, inside) for event, inside in found}
            in_order = sorted(distinct.values(), key=lambda one: one[0].received_at)
            for (before, _), (event, inside) in pairwise(in_order):
                late = of_class in {"feedback", "item"} and _time(event) - _time(before) > self._window
                if inside and not late:
                    yield name, event


def _time(event: EventOutline) -> datetime:
    return datetime.fromisoformat(event.received_at)
