"""The overlay: events that this replica has accepted and the feed has not delivered yet.

Invariants: an event leaves the overlay when the feed delivers it, under its own position or, after a client's retry on
another replica, under another one; at the latest when the feed has passed its position, because then it was archived,
a duplicate, or erased. The number of events is bounded, in all and of each user: beyond it the oldest leave, and lists
miss them until the feed delivers them. Pure.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping

from telemetry.batch import EventPosition, Position
from telemetry.live.live_event import LiveEvent


class Overlay:
    """The events of one replica, by user.

    Args:
        most: The largest number of events.
        most_of_user: The largest number of events of one user.
    """

    def __init__(self, most: int, most_of_user: int) -> None:
        self._most = most
        self._most_of_user = most_of_user
        self._by_user: dict[str, dict[str, LiveEvent]] = {}
        # In the order of acceptance.
        self._queue: OrderedDict[EventPosition, LiveEvent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Overlay {len(self._queue)} events of {len(self._by_user)} users>"

    def of(self, user_id: str) -> Collection[LiveEvent]:
        """Return the events of a user, in the order of acceptance."""
        events = self._by_user.get(user_id)
        return () if events is None else events.values()

    def add(self, event: LiveEvent) -> list[str]:
        """Add an event, unless its user has one of the same id; returns the users whose events changed."""
        changed: list[str] = []
        # Under another identity the producer numbers anew what was not shipped, and no mark passes the old numbers.
        is_renumbered = bool(self._queue) and next(reversed(self._queue))[:2] != event.position[:2]
        while self._queue and (is_renumbered or len(self._queue) >= self._most):
            changed.append(self._remove(self._oldest()).user_id)
        events = self._by_user.setdefault(event.user_id, {})
        if event.event_id not in events:
            events[event.event_id] = event
            self._queue[event.position] = event
            changed.append(event.user_id)
            if len(events) > self._most_of_user:
                self._remove(next(iter(events.values())))
        return changed

    def delivered(self, event: LiveEvent) -> None:
        """Remove what the feed delivered, and a copy of it that the archive will not keep."""
        own = self._by_user.get(event.user_id, {}).get(event.event_id)
        if own is not None and (own.position == event.position or content_of(own) == content_of(event)):
            self._remove(own)

    def passed(self, marks: Mapping[str, Position]) -> list[str]:
        """Remove the events up to the marks of their producer; returns the users whose events changed."""
        changed: list[str] = []
        while self._queue:
            oldest = self._oldest()
            mark = marks.get(oldest.position.producer)
            if mark is None or mark < oldest.position[1:]:
                break
            changed.append(self._remove(oldest).user_id)
        return changed

    def erase(self, user_id: str, requested_ms: int) -> None:
        """Remove the events of a user that were received until a time."""
        for event in list(self.of(user_id)):
            if event.received_ms <= requested_ms:
                self._remove(event)

    def _oldest(self) -> LiveEvent:
        return next(iter(self._queue.values()))

    def _remove(self, event: LiveEvent) -> LiveEvent:
        """Remove an event that is held, and return it."""
        del self._queue[event.position]
        events = self._by_user[event.user_id]
        del events[event.event_id]
        if not events:
            del self._by_user[event.user_id]
        return event


def content_of(event: LiveEvent) -> tuple[object, ...]:
    """Return what two copies of one event, which a client sent twice, have in common."""
    return event.event_id, event.type, event.item_id, event.value
