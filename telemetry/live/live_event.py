"""A live event: the part of archived feedback that lists answer to.

Invariants: its identity is its position, since the archive has already removed duplicates; an event whose id stands for
another event (`id_conflict`) is never live. Events are ordered by (time_ms, position). A user's live state is the last
of the set of the user's events in that order, so it does not depend on the order in which they arrive. Pure.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple

from telemetry.batch import EventPosition
from telemetry.events import Feedback, Record

IMPRESSION: Final = "impression"
# The order is part of the snapshot's format: new types are added at the end.
LIVE_TYPES: Final = ("rating", "purchase", "click", "view", "dismiss", IMPRESSION)
# Impressions are live only where they are asked for.
DEFAULT_TYPES: Final = frozenset(LIVE_TYPES) - {IMPRESSION}
_SECOND_DIGITS: Final = 19
_MS_PER_S: Final = 1000


class LiveEvent(NamedTuple):
    """An action of a user.

    Attributes:
        user_id: As in telemetry; with pseudonyms, the pseudonym.
        type: One of `LIVE_TYPES`.
        value: The rating, or what the client sent with another type; None without.
        time_ms: Unix time in milliseconds: the client's unless it is marked as skewed, and never after the receipt.
        received_ms: Unix time in milliseconds of the receipt.
        event_id: The client's id; empty in events that come from a state snapshot.
        position: Producer, epoch and sequence number.
    """

    user_id: str
    item_id: str
    type: str
    value: float | None
    time_ms: int
    received_ms: int
    event_id: str
    position: EventPosition

    @property
    def order(self) -> tuple[int, EventPosition]:
        """The key by which events of a user are sorted."""
        return self.time_ms, self.position


def live_types(*, impressions: bool) -> frozenset[str]:
    """Return the types of feedback that are live; impressions only where the setting asks for them."""
    return frozenset(LIVE_TYPES) if impressions else DEFAULT_TYPES


def live_event(record: Record, types: Iterable[str] = DEFAULT_TYPES) -> LiveEvent | None:
    """Return the live event of an archived one; None if it is not live.

    Args:
        record: Any record of the archive.
        types: The types of feedback that are live.
    """
    event = record.event
    if not isinstance(event, Feedback) or event.type not in types or "id_conflict" in event.marks:
        return None
    received_ms = unix_ms(event.received_at)
    time_ms = received_ms
    if event.client_time is not None and "clock_skew" not in event.marks:
        # A producer of another version may have sent a time that is none.
        with suppress(ValueError):
            time_ms = min(unix_ms(event.client_time), received_ms)
    position = EventPosition(record.producer, record.epoch, record.seq)
    value = None if event.value is None else float(event.value)
    return LiveEvent(event.user_id, event.item_id, event.type, value, time_ms, received_ms, event.event_id, position)


def last_events(events: Iterable[LiveEvent], most: int) -> list[LiveEvent]:
    """Return the last of a user's events in their order, each position once."""
    by_position = {event.position: event for event in events}
    return sorted(by_position.values(), key=lambda event: event.order)[-most:]


def unix_ms(text: str) -> int:
    """Return the Unix time in milliseconds of `2026-11-21T01:02:03.456Z`; a leap second counts as the next one.

    Raises:
        ValueError: The text is no such time.
    """
    second, millisecond = text[:_SECOND_DIGITS], int(text[_SECOND_DIGITS + 1 : -1])
    leap = second.endswith(":60")
    parsed = datetime.fromisoformat(second[:-2] + "59" if leap else second).replace(tzinfo=UTC)
    return (int(parsed.timestamp()) + leap) * _MS_PER_S + millisecond
