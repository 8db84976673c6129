"""What happens to events once they are in the archive.

Invariant: a sink sees committed events only, in each producer's order, and at most once in a process. If the
consumer dies between commit and sink, the sink misses them: what a sink builds must be rebuildable from the
archive.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from telemetry.events import Record


class Sink(Protocol):
    """Something that wants committed events; what it raises is counted and stops nothing."""

    @property
    def name(self) -> str:
        """What to call it in notes."""

    async def take(self, records: Sequence[Record]) -> None:
        """Take the events of one commit; the consumer waits for it."""


class CountingSink:
    """Counts committed events by class: `served`, `feedback` by type, `system` by kind."""

    name = "counting"

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    async def take(self, records: Sequence[Record]) -> None:
        """See `Sink.take`."""
        self.counts.update(
            getattr(record.event, "type", None) or getattr(record.event, "kind", None) or "served" for record in records
        )
