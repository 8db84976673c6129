"""What a lease has committed and no state snapshot includes yet, and how far it reaches.

Invariant: events are dropped only together with the note that they have to be read from the archive (`overflowed`).
No clock, no file, no socket.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from telemetry.batch import Position
from telemetry.consumer.sinks import CommittedEvents
from telemetry.events import ItemChange, encode
from telemetry.live.event_layer import user_key
from telemetry.live.feed_entry import ErasedUser, FeedEntry
from telemetry.live.item_table import ItemTable
from telemetry.live.live_event import LiveEvent, live_event, unix_ms

# More than these wait only while the disk of the state refuses.
_MOST_EVENTS: Final = 500_000


class UnsavedState:
    """The changes of a lease.

    Args:
        types: The types of feedback that are live.
        marks: By producer: how far it is archived, of what this object was given.

    Attributes:
        erased: By digest: users whose events are to be removed from the layers, with the Unix time in milliseconds
            up to which.
        items: The last change of each item; complete once the state is restored.
        marks: As above.
        since_ms: The horizon, Unix time in milliseconds: older events are left out.
        is_changed: Whether there is anything that no snapshot includes.
        overflowed: Whether events were dropped, so that the archive has to be read for them.
    """

    def __init__(self, types: Sequence[str], marks: Mapping[str, Position]) -> None:
        self._types = types
        # New events, and those that are being saved.
        self._pending: list[LiveEvent] = []
        self._in_hand: list[LiveEvent] = []
        # The marks of the last entry with content; marks alone wait for the next heartbeat.
        self._offered: Mapping[str, Position] = {}
        self.erased: dict[bytes, int] = {}
        self.items = ItemTable()
        self.marks: dict[str, Position] = dict(marks)
        self.since_ms = 0
        self.is_changed = False
        self.overflowed = False

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, commit: CommittedEvents, is_held: Callable[[bytes], bool]) -> FeedEntry | None:
        """Add a commit.

        Args:
            commit: Its watermarks become the marks.
            is_held: Whether the state holds a user, by digest.

        Returns:
            The feed entry of what is live in it; None if nothing is.
        """
        events, lines = [], []
        for record in commit.records:
            if isinstance(record.event, ItemChange):
                if self.items.apply(record):
                    lines.append(encode(*record))
            elif (event := live_event(record, self._types)) is not None and event.time_ms >= self.since_ms:
                events.append(event)
        self._pending += events
        requests = [ErasedUser(request.user_id, unix_ms(request.requested_at)) for request in commit.erasures]
        erased = self.erase(requests, is_held)
        self.marks = dict(commit.watermarks)
        if len(self._pending) > _MOST_EVENTS:
            self._pending, self.overflowed = [], True
        if not (events or lines or erased):
            return None
        self.is_changed = True
        moved = {name: mark for name, mark in self.marks.items() if self._offered.get(name) != mark}
        self._offered = self.marks
        return FeedEntry(events, erased, lines, moved)

    def erase(self, users: Sequence[ErasedUser], is_held: Callable[[bytes], bool]) -> list[ErasedUser]:
        """Remove users from the changes; returns those that the state or the feed may hold.

        Args:
            is_held: Whether the state holds a user, by digest.
        """
        if not users:
            return []
        requested = {user.user_id: user.requested_ms for user in sorted(users, key=lambda user: user.requested_ms)}
        pending = {event.user_id for event in (*self._pending, *self._in_hand)}
        self._pending = [
            event for event in self._pending if event.received_ms > requested.get(event.user_id, event.received_ms - 1)
        ]
        held = []
        for user_id, requested_ms in requested.items():
            key = user_key(user_id)
            if user_id in pending or key in self.erased or is_held(key):
                self.erased[key] = max(requested_ms, self.erased.get(key, requested_ms))
                held.append(ErasedUser(user_id, requested_ms))
        return held

    def take(self) -> list[LiveEvent]:
        """Return the events for a snapshot; they stay in hand until `taken_saved` or `put_back`."""
        self._in_hand, self._pending, self.is_changed = self._pending, [], False
        return self._in_hand

    def taken_saved(self) -> None:
        """Let go of the events in hand: a snapshot includes them."""
        self._in_hand = []

    def put_back(self) -> None:
        """Return the events in hand to the others: their snapshot could not be saved."""
        # What is in a layer already is the same event.
        self._pending, self._in_hand, self.is_changed = self._in_hand + self._pending, [], True

    def purged(self, erased: Mapping[bytes, int]) -> None:
        """Note which users the layers hold no longer, unless they were erased again meanwhile."""
        self.erased = {key: ms for key, ms in self.erased.items() if erased.get(key) != ms}
