"""Sinks: consumers of committed events.

Invariant: a sink sees committed events only, in each producer's order, and at most once in a process. If the process
dies between commit and sink, the sink misses them, so its state must be rebuildable from the archive.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from telemetry.batch import Position
from telemetry.catalogue.commit import ErasureRequest
from telemetry.events import Record


@dataclass(frozen=True, slots=True)
class CommittedEvents:
    """One commit.

    Attributes:
        records: The events that were archived; none if all were removed.
        erasures: The users whose erasure is requested in it.
        watermarks: How far each producer is archived now.
    """

    records: Sequence[Record]
    erasures: Sequence[ErasureRequest] = ()
    watermarks: Mapping[str, Position] = field(default_factory=dict)


class Sink(Protocol):
    """Receives committed events; an error that it raises is counted and stops nothing."""

    @property
    def name(self) -> str:
        """Its name in notes."""

    async def write(self, commit: CommittedEvents) -> None:
        """Handle one commit; the consumer waits for it."""


class CountingSink:
    """Counts committed events by class: `served`, `feedback` by type, `system` and `item` by kind."""

    name = "counting"

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    async def write(self, commit: CommittedEvents) -> None:
        """Count the events of one commit."""
        self.counts.update(
            getattr(record.event, "type", None) or getattr(record.event, "kind", None) or "served"
            for record in commit.records
        )
