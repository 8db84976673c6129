"""The state watermark of a served list: which live events of its user the list reflects, as a text.

    <producer>:<epoch>-<seq>,<producer>:<epoch>-<seq>+<event_id>@<time_ms>@<producer>:<epoch>-<seq>~<since_ms>

First the marks: the largest position of each producer among the events up to which the replica had all of them. Then,
each behind a plus, further events: those that the replica had just accepted, or that came without the ones before them.
The archive may have such an event under another position, if the client sent it again and the other copy was archived.
Last, the horizon of the state, if it has one.

Invariant: `applied_events` of a user's archived events gives the events that the list reflects, in their order. Of one
producer the replica had all events up to the mark, and the state keeps the last of them: to leave out what is not among
the last loses nothing. Pure.
"""

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from telemetry.batch import EventPosition, Position
from telemetry.errors import BadBatchError, BadEventError
from telemetry.live.live_event import LiveEvent, last_events


class PendingEvent(NamedTuple):
    """An event beyond the marks; its id is empty where the replica does not know it."""

    event_id: str
    time_ms: int
    position: EventPosition


class StateWatermark(NamedTuple):
    """The parts of a state watermark.

    Attributes:
        marks: By producer: the largest position.
        pending: The events beyond the marks, in their order.
        since_ms: Earlier events are in no state; 0 without such a horizon.
    """

    marks: dict[str, Position]
    pending: tuple[PendingEvent, ...] = ()
    since_ms: int = 0


def watermark_text(events: Iterable[LiveEvent], pending: Container[EventPosition] = (), since_ms: int = 0) -> str:
    """Return the state watermark of a user's live events.

    Args:
        events: The events, in their order.
        pending: The positions of those beyond the marks.
        since_ms: The horizon of the state; 0 without.
    """
    marks: dict[str, tuple[int, int]] = {}
    ahead = ""
    for event in events:
        producer, *place = event.position
        if event.position in pending:
            ahead += f"+{event.event_id}@{event.time_ms}@{_position_text(event.position)}"
        else:
            marks[producer] = max(marks.get(producer, (0, 0)), (place[0], place[1]))
    text = marks_text(marks)
    return f"{text}{ahead}~{since_ms}" if since_ms else text + ahead


def marks_text(marks: Mapping[str, tuple[int, int]]) -> str:
    """Return the (epoch, sequence number) of each producer as a text: `producer:epoch-seq`, by commas."""
    return ",".join(f"{producer}:{epoch}-{seq}" for producer, (epoch, seq) in sorted(marks.items()))


def parse_watermark(text: str) -> StateWatermark:
    """Return the parts of a text of `watermark_text`.

    Raises:
        BadEventError: It is not such a text.
    """
    rest, _, since = text.partition("~")
    marks, *pending = rest.split("+")
    try:
        positions = [_parse_position(mark) for mark in marks.split(",") if mark]
        return StateWatermark(
            {producer: Position(epoch, seq) for producer, epoch, seq in positions},
            tuple(_parse_pending(one) for one in pending),
            int(since or 0),
        )
    except (BadBatchError, ValueError):
        raise BadEventError(f"{text!r} is not a state watermark.") from None


def applied_events(archived: Iterable[LiveEvent], watermark: StateWatermark, most: int) -> list[LiveEvent]:
    """Return the live events that a list reflects, in their order.

    Args:
        archived: All live events of the list's user in the archive, in any order.
        watermark: Of the list.
        most: How many live events of a user the state keeps.
    """
    by_position = {event.position: event for event in archived}
    by_id = {event.event_id: event for event in by_position.values()}
    applied = [
        event
        for event in by_position.values()
        if event.position[1:] <= watermark.marks.get(event.position.producer, Position(0, 0))
    ]
    for one in watermark.pending:
        found = by_position.get(one.position) or by_id.get(one.event_id)
        if found is not None:
            applied.append(found._replace(position=one.position, time_ms=one.time_ms))
    return last_events((event for event in applied if event.time_ms >= watermark.since_ms), most)


def _position_text(position: EventPosition) -> str:
    return f"{position.producer}:{position.epoch}-{position.seq}"


def _parse_position(text: str) -> EventPosition:
    producer, _, place = text.rpartition(":")
    return EventPosition(producer, *Position.parse(place))


def _parse_pending(text: str) -> PendingEvent:
    event_id, time_ms, position = text.split("@")
    return PendingEvent(event_id, int(time_ms), _parse_position(position))
