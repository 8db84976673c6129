"""The outline of an archived line: the fields that an audit needs.

Invariant: a parsed line was whole, JSON from its first byte to its last; its other fields are not checked. Pure.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import orjson

_TEXTS = (str,) * 5
_PLAIN = frozenset({str, float, int, type(None)})


class GapCount(NamedTuple):
    """What a gap record counts: events of a class (None for accepted ones) that will never come, and why."""

    of_class: str | None
    reason: str
    events: int


Content: TypeAlias = tuple[str | float | None, ...]
"""The user and content of feedback, or the item and content of an item change, as in its line."""
EventId: TypeAlias = tuple[str, str, str, Content | None]
"""A class or `list`, the tenant, the id, and the content that it stands for."""
_RECORD = ("kind", "title", "attributes", "hidden", "available_from", "available_until")
_content_fields = itemgetter("user_id", "type", "item_id", "value", "recommendation_id", "position", "client_time")


class EventOutline(NamedTuple):
    """The fields of a line that an audit needs; `list_id` is set for served lists, `content` for what clients send."""

    of_class: str
    tenant: str
    event_id: str
    list_id: str | None
    received_at: str
    producer: str
    epoch: int
    seq: int
    gap: GapCount | None
    content: Content | None = None

    @property
    def ids(self) -> tuple[EventId, ...]:
        """The ids that no other event may have; what clients send may share its id with other content."""
        event = (self.of_class, self.tenant, self.event_id, self.content)
        # A served event has its list's id, unless it was changed.
        if self.list_id is None or self.list_id == self.event_id:
            return (event,)
        return event, ("list", self.tenant, self.list_id, None)


def parse_outline(line: bytes) -> EventOutline:
    """Read the outline of an event's line.

    Raises:
        ValueError: It is not an event's line.
    """
    try:
        fields = orjson.loads(line)
        of_class = fields["class"]
        event = EventOutline(
            of_class,
            fields["tenant"],
            fields["event_id"],
            str(fields["recommendation_id"]) if of_class == "served" else None,
            fields["received_at"],
            fields["producer"],
            fields["epoch"],
            fields["seq"],
            _gap(fields) if of_class == "system" else None,
            _content_of[of_class](fields) if of_class in _content_of else None,
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"it is not an event: {error!r}") from None
    # All texts but the gap's, in the order of the fields; a loop would cost as much as the rest of this.
    texts = (type(event[0]), type(event[1]), type(event[2]), type(event[4]), type(event[5]))
    if texts != _TEXTS or type(event.epoch) is not int or type(event.seq) is not int or event.seq < 1:
        raise ValueError("it does not name the position of an event")
    return event


def _content(fields: dict[str, Any]) -> Content:
    content: Content = _content_fields(fields)
    # Values of other types are not hashable.
    return content if all(type(one) in _PLAIN for one in content) else ()


def _record(fields: dict[str, Any]) -> Content:
    return (fields["item_id"], orjson.dumps([fields[name] for name in _RECORD], option=orjson.OPT_SORT_KEYS).decode())


_content_of: dict[str, Callable[[dict[str, Any]], Content]] = {"feedback": _content, "item": _record}


def _gap(fields: dict[str, Any]) -> GapCount | None:
    if fields["kind"] != "gap" or type(fields["count"]) is not int:
        return None
    return GapCount(fields["of_class"], str(fields["reason"]), fields["count"])
