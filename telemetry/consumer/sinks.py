"""Sinks: consumers of committed events.

Invariant: a sink sees committed events only, in each producer's order, and at most once in a process. If the process
dies between commit and sink, the sink misses them, so its state must be rebuildable from the archive.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from telemetry.events import Record


class Sink(Protocol):
    """Receives committed events; an error that it raises is counted and stops nothing."""

    @property
    def name(self) -> str:
        """Its name in notes."""

    async def write(self, records: Sequence[Record]) -> None:
        """Handle the events of one commit; the consumer waits for it."""


class CountingSink:
    """Counts committed events by class: `served`, `feedback` by type, `system` and `item` by kind."""

    name = "counting"

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    async def write(self, records: Sequence[Record]) -> None:
        """Count the events of one commit."""
        self.counts.update(
            getattr(record.event, "type", None) or getattr(record.event, "kind", None) or "served" for record in records
        )
