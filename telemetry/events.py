"""The events and their bytes: one JSON line each, served lists of schema 4, all other classes of schema 1.

Invariant: `decode(encode(event, …))` gives the same event back, every field of a class is always present and in the
order of its table below, and a line contains no raw line break before its end. Lines of older versions decode to the
same events: feedback without `marks` has none, schema 1 holds a served list's items as rows (`served_items.py`),
schemas 1 and 2 hold two fields that were always null (`schema_1.py`), and schemas 1 to 3 hold neither the request of a
served list nor the live state that it reflects. Pure: no clock, no file, no socket.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from math import isfinite
from types import UnionType
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

import orjson

from telemetry.batch import EventPosition
from telemetry.errors import BadEventError
from telemetry.served_items import Items, check_rows

SCHEMA: Final = 1
SERVED_SCHEMA: Final = 4
# The first bytes of a served list's line, by schema, the newest first.
SERVED_STARTS: Final = tuple(b'{"schema":%d,"class":"served",' % schema for schema in (SERVED_SCHEMA, 3, 2, SCHEMA))
# Scores may be NumPy scalars; refusing them would lose an event because of a type.
_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY

SystemKind: TypeAlias = Literal["gap", "unclean_start", "erase"]
ItemChangeKind: TypeAlias = Literal["put", "delete"]
Mark: TypeAlias = Literal["id_conflict", "unknown_item", "clock_skew", "out_of_scale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A served list of one attempt of a request; times are RFC 3339 in UTC with milliseconds.

    `state_watermark` names the live events of the user that the list reflects (`live/state_watermark.py`), and
    `events_applied` is their number. `catalogue_watermark` names the changes of items that it reflects, by the largest
    position of each producer; None without any. `request` is what the caller asked for, without the user; None before
    schema 4.
    """

    event_id: str
    tenant: str
    client_time: str | None
    received_at: str
    request_id: str
    recommendation_id: str
    user_id: str | None
    model: str
    candidate_set: str
    latency_ms: float
    degraded: str | None
    items: Items
    state_watermark: str | None = None
    events_applied: int = 0
    catalogue_watermark: str | None = None
    request: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """An action of a user, as a client reported it.

    `marks` names oddities that do not lead to a refusal: `unknown_item`, an item outside of the served model;
    `clock_skew`, a `client_time` far from the replica's clock; `out_of_scale`, a rating outside of the scale;
    `id_conflict`, an id that its user used for another event.
    """

    event_id: str
    tenant: str
    client_time: str | None
    received_at: str
    request_id: str
    type: str
    user_id: str
    item_id: str
    value: float | None
    recommendation_id: str | None
    position: int | None
    marks: list[Mark]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """An event of the pipeline itself; fields that a kind does not use are null.

    `gap`: `count` events of class `of_class` were dropped for `reason` after the event `from_seq` and not later than
    `to_seq`, the last one before this record. Dropped events have no number: numbers are dense over accepted events.
    `unclean_start`: the slot's previous process did not ship everything. `erase`: the user `user_id` is to be erased.
    """

    event_id: str
    tenant: str
    client_time: str | None
    received_at: str
    kind: SystemKind
    of_class: str | None = None
    count: int | None = None
    reason: str | None = None
    from_seq: int | None = None
    to_seq: int | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemChange:
    """A record of the item catalogue, as a client wrote it, or its removal.

    The last change of an item, by `received_at` and then by position, replaces the ones before it. `title` and
    `attributes` are None where the client gave none, which leaves those of the served model. Names of attributes are
    never `schema` (`wal/frame.py`). `available_from` and `available_until` are times as `received_at`.
    """

    event_id: str
    tenant: str
    client_time: str | None
    received_at: str
    request_id: str
    kind: ItemChangeKind
    item_id: str
    title: str | None = None
    attributes: dict[str, Any] | None = None
    hidden: bool = False
    available_from: str | None = None
    available_until: str | None = None


Event: TypeAlias = Served | Feedback | System | ItemChange


class Record(NamedTuple):
    """An event with its producer, epoch and number; numbers are dense from 1 in each epoch."""

    event: Event
    producer: str
    epoch: int
    seq: int


_CLASSES: Final[dict[str, type[Event]]] = {
    "served": Served,
    "feedback": Feedback,
    "system": System,
    "item": ItemChange,
}
CLASSES: Final = tuple(_CLASSES)
_NAMES: Final = {kind: name for name, kind in _CLASSES.items()}
_KINDS: Final = {System: frozenset(get_args(SystemKind)), ItemChange: frozenset(get_args(ItemChangeKind))}


def _json_types(hint: Any) -> frozenset[type]:
    """Return the types that the JSON value of a field with this annotation may have."""
    if hint is float:
        return frozenset({int, float})
    if hint is Items:
        # Columns since schema 2, rows in schema 1.
        return frozenset({dict, list})
    if isinstance(hint, UnionType):
        return frozenset().union(*map(_json_types, get_args(hint)))
    return frozenset({str if get_origin(hint) is Literal else get_origin(hint) or hint})


_POSITION: Final = {"producer": frozenset({str}), "epoch": frozenset({int}), "seq": frozenset({int})}
_FIELDS: Final = {
    kind: {name: _json_types(hint) for name, hint in get_type_hints(kind).items()} for kind in _CLASSES.values()
}
# What a line of an older version, which lacks the field, stands for.
_ADDED_LATER: Final[dict[type[Event], dict[str, Any]]] = {
    Served: {"state_watermark": None, "events_applied": 0, "catalogue_watermark": None, "request": None},
    Feedback: {"marks": []},
}
# The fields behind the position in a line.
_TAILS: Final = {kind: tuple(fields)[4:] for kind, fields in _FIELDS.items()}


def encode(event: Event, producer: str, epoch: int, seq: int) -> bytes:
    """Return the line of an event with its producer, epoch and number: UTF-8 JSON ending in one line feed.

    Raises:
        BadEventError: A field holds a value that JSON cannot: a lone surrogate, a foreign type, a NaN.
    """
    if type(event) is Served:
        # On the request path: one literal takes half the time of a loop over the fields.
        fields: dict[str, object] = {
            "schema": SERVED_SCHEMA,
            "class": "served",
            "event_id": event.event_id,
            "tenant": event.tenant,
            "client_time": event.client_time,
            "received_at": event.received_at,
            "producer": producer,
            "epoch": epoch,
            "seq": seq,
            "request_id": event.request_id,
            "recommendation_id": event.recommendation_id,
            "user_id": event.user_id,
            "model": event.model,
            "candidate_set": event.candidate_set,
            "state_watermark": event.state_watermark,
            "events_applied": event.events_applied,
            "catalogue_watermark": event.catalogue_watermark,
            "request": event.request,
            "latency_ms": event.latency_ms,
            "degraded": event.degraded,
            "items": event.items.as_fields(),
        }
    elif (of_class := _NAMES.get(type(event))) is not None:
        # orjson writes a number that is not finite as null, which decodes to another event.
        if type(event) is Feedback and event.value is not None and not isfinite(event.value):
            raise BadEventError(f"The feedback event's value is {event.value}, which JSON cannot hold.")
        fields = {
            "schema": SCHEMA,
            "class": of_class,
            "event_id": event.event_id,
            "tenant": event.tenant,
            "client_time": event.client_time,
            "received_at": event.received_at,
            "producer": producer,
            "epoch": epoch,
            "seq": seq,
        }
        for name in _TAILS[type(event)]:
            fields[name] = getattr(event, name)
    else:
        raise BadEventError(f"{type(event).__name__} is not a class of event.")
    try:
        return orjson.dumps(fields, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEventError(f"The {fields['class']} event cannot be written as JSON: {error}.") from None


def decode(line: bytes) -> Record:
    """Return the record of a line, with or without its line feed; unknown fields are ignored.

    Raises:
        BadEventError: The line is not JSON, of another schema or of an unknown class, or a field is missing or of the
            wrong type; the message names it.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadEventError(f"The line is not JSON: {error}.") from None
    if type(fields) is not dict:
        raise BadEventError("The line is not a JSON object.")
    name = fields.get("class")
    schema = fields.get("schema")
    kind = _CLASSES.get(name) if isinstance(name, str) else None
    if schema != SCHEMA and (schema not in range(2, SERVED_SCHEMA + 1) or kind not in {Served, None}):
        raise BadEventError(
            f"The line is of schema {schema!r}. This version reads {SCHEMA}, and up to {SERVED_SCHEMA} of served lists."
        )
    if kind is None:
        raise BadEventError(f"{name!r} is not a class of event.")
    for field, value in _ADDED_LATER.get(kind, {}).items():
        fields.setdefault(field, value)
    values = {}
    try:
        for field, types in _FIELDS[kind].items():
            values[field] = value = fields[field]
            if type(value) not in types:
                raise BadEventError(f"Field {field!r} of the {name} event is of the wrong type.")
        for field, types in _POSITION.items():
            if type(fields[field]) not in types:
                raise BadEventError(f"Field {field!r} of the {name} event is of the wrong type.")
        if kind is Served:
            values["items"] = _items(values["items"], schema)
    except KeyError as error:
        raise BadEventError(f"The {name} event has no field {error}.") from None
    if kind is Feedback and not all(type(mark) is str for mark in values["marks"]):
        raise BadEventError("Field 'marks' of the feedback event is of the wrong type.")
    if kind in _KINDS and values["kind"] not in _KINDS[kind]:
        raise BadEventError(f"{values['kind']!r} is not a kind of {name} event.")
    if not _is_time(values["received_at"]):
        raise BadEventError(
            f"Field 'received_at' of the {name} event is not an RFC 3339 time in UTC with milliseconds."
        )
    return Record(kind(**values), fields["producer"], fields["epoch"], fields["seq"])


def position_of(line: bytes) -> EventPosition:
    """Return the position of a line's event.

    Raises:
        BadEventError: The line is not JSON, or lacks its producer, epoch or seq.
    """
    try:
        fields = orjson.loads(line)
        producer, epoch, seq = fields["producer"], fields["epoch"], fields["seq"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise BadEventError("The line has no producer, epoch and seq.") from None
    if not (type(producer) is str and type(epoch) is int and type(seq) is int):
        raise BadEventError("The line has no producer, epoch and seq.")
    return EventPosition(producer, epoch, seq)


def renumber(line: bytes, producer: str, epoch: int, seq: int) -> bytes:
    """Return a line of `encode` with another producer, epoch and number."""
    fields: dict[str, Any] = orjson.loads(line)
    fields["producer"], fields["epoch"], fields["seq"] = producer, epoch, seq
    return orjson.dumps(fields, option=_OPTIONS)


def _items(value: Any, schema: object) -> Items:
    if schema != SCHEMA:
        return Items.from_fields(value)
    if type(value) is not list:
        raise BadEventError("Field 'items' of the served event is of the wrong type.")
    check_rows(value)
    return Items.from_rows(value)


# The separators of "2026-11-21T01:02:03.456Z" and their indices.
_TIME_LENGTH = 24
_SEPARATORS = ((10, "T"), (13, ":"), (16, ":"), (19, "."), (23, "Z"))


def _is_time(text: str) -> bool:
    return (
        len(text) == _TIME_LENGTH
        and all(text[at] == separator for at, separator in _SEPARATORS)
        and _is_second(text[:19])
        and text[20:23].isdecimal()
    )


# Events of one batch share their second, so this is mostly a look-up.
@lru_cache(maxsize=256)
def _is_second(text: str) -> bool:
    if not text.isascii() or not (text[11:13] + text[14:16] + text[17:19]).isdecimal():
        return False
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return False
    return text[11:13] < "24" and text[14:16] < "60" and text[17:19] <= "60"
