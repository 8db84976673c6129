"""The live state of users as one replica knows it: the mapped snapshot, the feed since then, and the replica's overlay.

Invariants:

- A user's live events are the last of the set of all three sources, by (time, position). They are recomputed from the
  set and never added up, so neither order nor repetition of deliveries matters.
- Memory is bounded by the events since the snapshot and the overlay; what the snapshot covers is dropped. Users who are
  in the snapshot alone cost nothing.
- Up to its mark the state has all events of a producer. Watermarks name what is beyond the marks, such as the overlay,
  event by event: an earlier event of the same producer may still be missing.
- An erased user's events up to the request are in no answer from then on, whichever source has them.

Called in the event loop's thread. Pure: no clock, no file, no socket.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.live.overlay import Overlay, content_of
from telemetry.batch import EventPosition, Position
from telemetry.live.feed_entry import ErasedUser
from telemetry.live.live_event import LiveEvent, last_events
from telemetry.live.state_watermark import watermark_text
from telemetry.settings import LiveSettings

# Arrivals dropped in one call, so that the event loop does not wait for a large snapshot.
_DROPPED_PER_CALL: Final = 2_000
# At so many times the events that are kept of a user, the others are dropped.
_USER_FACTOR: Final = 2
_MOST_PENDING_OF_USER: Final = 1_000
_START: Final = Position(0, 0)
_LIVE_DEFAULTS: Final = LiveSettings()


class Snapshot(Protocol):
    """The state up to a position of the feed, as the consumer wrote it."""

    @property
    def position(self) -> Position:
        """The generation and the number of the last feed entry that it includes."""

    @property
    def marks(self) -> Mapping[str, Position]:
        """By producer: the position up to which it includes the events."""

    @property
    def since_ms(self) -> int:
        """Events before this Unix time in milliseconds are in no state."""

    @property
    def most_events(self) -> int:
        """How many events of a user the state keeps."""

    def events(self, user_id: str) -> Sequence[LiveEvent]:
        """Return the last events of a user, in their order."""

    def latest_ms(self) -> int:
        """Return the time of the latest event, Unix time in milliseconds; 0 without events."""

    def item_counts(self, types: Collection[str], from_ms: int) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
        """Count the events of each item from a time on."""


class NoSnapshot:
    """The state before there is any.

    Args:
        most_events: How many events of a user the state keeps.
    """

    position: Final = _START
    marks: Final[Mapping[str, Position]] = {}
    since_ms: Final = 0

    def __init__(self, most_events: int) -> None:
        self.most_events: Final = most_events

    def events(self, user_id: str) -> Sequence[LiveEvent]:
        """Return no event."""
        return ()

    def latest_ms(self) -> int:
        """Return 0."""
        return 0

    def item_counts(self, _types: Collection[str], _from_ms: int) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
        """Yield nothing."""
        return iter(())


class UserEvents(NamedTuple):
    """The live events of one user.

    Attributes:
        events: The last ones, in their order.
        pending: The positions of those beyond the marks.
        since_ms: The horizon of the state.
    """

    events: Sequence[LiveEvent]
    pending: frozenset[EventPosition] = frozenset()
    since_ms: int = 0

    @property
    def revision(self) -> int:
        """A number that differs whenever the events do."""
        return hash(tuple([event.position for event in self.events]))

    @property
    def oldest_ms(self) -> int:
        """The least time of an event, Unix time in milliseconds."""
        return self.events[0].time_ms

    @property
    def watermark(self) -> str:
        """The state watermark of a list that reflects the events."""
        return watermark_text(self.events, self.pending, self.since_ms)


class LiveState:
    """The live state of one replica.

    Args:
        most_pending: How many events the overlay holds.
        most_events: How many events of a user the state keeps before there is a snapshot, which says it from then on.
    """

    def __init__(self, most_pending: int, most_events: int = _LIVE_DEFAULTS.events_per_user) -> None:
        self._snapshot: Snapshot = NoSnapshot(most_events)
        self._marks: dict[str, Position] = {}
        # Of each user in the order of arrival, with the feed's position.
        self._recent: dict[str, list[tuple[Position, LiveEvent]]] = {}
        # The position and the user of each, to be found when a snapshot covers it.
        self._arrivals: deque[tuple[Position, str]] = deque()
        self._overlay = Overlay(most_pending, _MOST_PENDING_OF_USER)
        # Until a snapshot is without them; None until the feed has the request, too.
        self._erased: dict[str, tuple[int, Position | None]] = {}
        self._on_change: Callable[[str | None], None] = lambda _user_id: None
        self.position = _START
        """The generation and the number of the last feed entry that was applied."""

    def __repr__(self) -> str:
        return f"<LiveState {self.position} recent={len(self._arrivals)} {self._overlay!r}>"

    def on_change(self, call: Callable[[str | None], None]) -> None:
        """Set the function that is called with each user whose events change; with None if those of any user may."""
        self._on_change = call

    @property
    def since_ms(self) -> int:
        """Events before this Unix time in milliseconds are in no state."""
        return self._snapshot.since_ms

    @property
    def recent_events(self) -> int:
        """How many events are held in memory because the snapshot lacks them."""
        return len(self._arrivals)

    @property
    def pending_events(self) -> int:
        """How many accepted events the feed has not delivered."""
        return len(self._overlay)

    def user(self, user_id: str) -> UserEvents | None:
        """Return the live events of a user; None if there are none."""
        snapshot = self._snapshot
        fed = [*snapshot.events(user_id), *(event for _, event in self._recent.get(user_id, ()))]
        own = self._overlay.of(user_id)
        if not fed and not own:
            return None
        delivered = {content_of(event) for event in fed} if own else ()
        pending = [event for event in own if content_of(event) not in delivered]
        erased_ms = self._erased.get(user_id, (-1, None))[0]
        since_ms = snapshot.since_ms
        events = last_events(
            (event for event in (*fed, *pending) if event.time_ms >= since_ms and event.received_ms > erased_ms),
            snapshot.most_events,
        )
        if not events:
            return None
        marks = self._marks
        ahead = [event.position for event in events if marks.get(event.position.producer, _START) < event.position[1:]]
        return UserEvents(events, frozenset(ahead), since_ms)

    def of_all(self) -> tuple[Snapshot, list[LiveEvent]]:
        """Return what is known of all users: the snapshot, which another thread may read, and the events since."""
        return self._snapshot, [event for events in self._recent.values() for _, event in events]

    def accept(self, events: Iterable[LiveEvent]) -> None:
        """Apply events that this replica has accepted."""
        for event in events:
            for user_id in self._overlay.add(event):
                self._on_change(user_id)

    def erase(self, erased: ErasedUser, position: Position | None = None) -> None:
        """Forget a user's events up to a request.

        Args:
            erased: The request.
            position: Its entry in the feed; None if this replica took it, and the feed has yet to deliver it.
        """
        user_id, requested_ms = erased
        known_ms, known_position = self._erased.get(user_id, (0, None))
        self._erased[user_id] = max(requested_ms, known_ms), position or known_position
        self._overlay.erase(user_id, requested_ms)
        kept = [entry for entry in self._recent.pop(user_id, ()) if entry[1].received_ms > requested_ms]
        if kept:
            self._recent[user_id] = kept
        self._on_change(user_id)

    def load(self, snapshot: Snapshot) -> None:
        """Take a snapshot in place of the one before; of another generation, it replaces what the feed delivered."""
        if snapshot.position.epoch != self.position.epoch:
            self._recent.clear()
            self._arrivals.clear()
            self._marks.clear()
        # Otherwise it holds what the feed has delivered already.
        is_news = snapshot.position.epoch != self.position.epoch or snapshot.position > self.position
        self._snapshot = snapshot
        if is_news:
            self.position = snapshot.position
        self._erased = {
            user_id: (requested_ms, position)
            for user_id, (requested_ms, position) in self._erased.items()
            if position is None or position > snapshot.position
        }
        self._pass(snapshot.marks)
        if is_news:
            self._on_change(None)

    def drop_covered(self) -> bool:
        """Drop some of the events that the snapshot covers; returns whether there may be more."""
        covered = self._snapshot.position
        for _ in range(_DROPPED_PER_CALL):
            if not self._arrivals or self._arrivals[0][0] > covered:
                return False
            _, user_id = self._arrivals.popleft()
            events = self._recent.get(user_id, [])
            while events and events[0][0] <= covered:
                del events[0]
            if not events:
                self._recent.pop(user_id, None)
        return True

    def apply(
        self,
        position: Position,
        events: Iterable[LiveEvent],
        erased: Iterable[ErasedUser] = (),
        marks: Mapping[str, Position] | None = None,
    ) -> None:
        """Apply what the feed delivered up to a position."""
        self.apply_part(position, events)
        for one in erased:
            self.erase(one, position)
        self._pass(marks or {})
        self.position = position

    def apply_part(self, position: Position, events: Iterable[LiveEvent]) -> None:
        """Apply some of the events up to a position, which is not reached before the rest is applied, too."""
        for event in events:
            self._add_recent(position, event)
            self._overlay.delivered(event)
            self._on_change(event.user_id)

    def _pass(self, marks: Mapping[str, Position]) -> None:
        """Take the marks up to which everything was delivered."""
        for producer, mark in marks.items():
            self._marks[producer] = max(mark, self._marks.get(producer, _START))
        for user_id in self._overlay.passed(marks):
            self._on_change(user_id)

    def _add_recent(self, position: Position, event: LiveEvent) -> None:
        events = self._recent.setdefault(event.user_id, [])
        events.append((position, event))
        self._arrivals.append((position, event.user_id))
        most = self._snapshot.most_events
        if len(events) > _USER_FACTOR * most:
            # What is not among the last now never is again.
            last = set(last_events((event for _, event in events), most))
            events[:] = [entry for entry in events if entry[1] in last]
