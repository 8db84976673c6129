"""A feed entry: what one or more commits of the consumer added to live state, and its bytes in Redis.

Invariants: applying an entry twice gives the same state. Within an entry events come before erasures. An entry without
content is a heartbeat. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from telemetry.batch import EventPosition, Position
from telemetry.errors import BadBatchError
from telemetry.events import Record, decode
from telemetry.live.live_event import LIVE_TYPES, LiveEvent

_VERSION: Final = 1


class ErasedUser(NamedTuple):
    """A user whose events received at or before a Unix time in milliseconds are erased."""

    user_id: str
    requested_ms: int


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """The content of a feed entry.

    Attributes:
        events: Live events that were archived.
        erased: Users whose erasure was requested.
        item_lines: Lines of archived changes of items.
        marks: By producer: the position up to which its events are archived, or known to be none.
    """

    events: list[LiveEvent] = field(default_factory=list)
    erased: list[ErasedUser] = field(default_factory=list)
    item_lines: list[bytes] = field(default_factory=list)
    marks: Mapping[str, Position] = field(default_factory=dict)

    def item_changes(self) -> list[Record]:
        """Return the records of the changes of items."""
        return [decode(line) for line in self.item_lines]


def encode_entry(entry: FeedEntry) -> bytes:
    """Return the bytes of an entry: JSON, with the events grouped by producer and epoch."""
    groups: dict[tuple[str, int], list[list[Any]]] = {}
    for event in entry.events:
        producer, epoch, seq = event.position
        groups.setdefault((producer, epoch), []).append(
            [
                seq,
                event.user_id,
                event.item_id,
                LIVE_TYPES.index(event.type),
                event.value,
                event.time_ms,
                event.received_ms - event.time_ms,
                event.event_id,
            ]
        )
    fields: dict[str, Any] = {"v": _VERSION}
    if groups:
        fields["events"] = [[producer, epoch, rows] for (producer, epoch), rows in groups.items()]
    if entry.erased:
        fields["erased"] = [list(pair) for pair in entry.erased]
    if entry.item_lines:
        fields["items"] = [line.decode() for line in entry.item_lines]
    if entry.marks:
        fields["marks"] = {producer: list(mark) for producer, mark in entry.marks.items()}
    return orjson.dumps(fields)


def decode_entry(data: bytes) -> FeedEntry:
    """Return the entry of its bytes.

    Raises:
        BadBatchError: The bytes are no entry of this version.
    """
    try:
        fields = orjson.loads(data)
        if fields["v"] != _VERSION:
            raise BadBatchError(f"The feed entry is of version {fields['v']!r}. This version reads {_VERSION}.")
        events = [
            LiveEvent(
                user_id, item_id, LIVE_TYPES[kind], value, time_ms, time_ms + delay_ms, event_id,
                EventPosition(producer, epoch, seq),
            )
            for producer, epoch, rows in fields.get("events", ())
            for seq, user_id, item_id, kind, value, time_ms, delay_ms, event_id in rows
        ]  # fmt: skip
        return FeedEntry(
            events,
            [ErasedUser(*pair) for pair in fields.get("erased", ())],
            [line.encode() for line in fields.get("items", ())],
            {producer: Position(*mark) for producer, mark in fields.get("marks", {}).items()},
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadBatchError(f"The feed entry cannot be read: {error}.") from None
