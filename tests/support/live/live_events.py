"""Live events for tests, and snapshots of the state held in memory."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import EventPosition, Position
from telemetry.live.live_event import LiveEvent, last_events

_START: Final = Position(1, 0)


def event(seq: int, time_ms: int = 1_000, *, user_id: str = "u1", producer: str = "p", **changes: Any) -> LiveEvent:
    """Return a rating of an item by a user, at a position, changed."""
    plain = LiveEvent(
        user_id, f"i{seq}", "rating", 4.0, time_ms, time_ms, f"event-{producer}-{seq}", EventPosition(producer, 1, seq)
    )
    return plain._replace(**changes)


@dataclass(frozen=True)
class MemorySnapshot:
    """A snapshot of the state, without a file."""

    position: Position = _START
    held: Sequence[LiveEvent] = ()
    marks: Mapping[str, Position] = field(default_factory=dict)
    since_ms: int = 0
    most_events: int = 5

    def events(self, user_id: str) -> Sequence[LiveEvent]:
        """Return the last events of a user, without their ids, which a file does not hold."""
        own = (event._replace(event_id="") for event in self.held if event.user_id == user_id)
        return last_events((event for event in own if event.time_ms >= self.since_ms), self.most_events)

    def latest_ms(self) -> int:
        """Return the time of the latest event."""
        return max((event.time_ms for event in self.held), default=0)

    def item_counts(self, types: Collection[str], from_ms: int) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
        """Count the events of each item."""
        counted = Counter(event.item_id for event in self.held if event.type in types and event.time_ms >= from_ms)
        yield list(counted), np.array(list(counted.values()), dtype=np.int64)


def marks_of(events: Iterable[LiveEvent]) -> dict[str, Position]:
    """Return the largest position of each producer."""
    marks: dict[str, Position] = {}
    for one in events:
        producer, epoch, seq = one.position
        marks[producer] = max(marks.get(producer, Position(0, 0)), Position(epoch, seq))
    return marks
