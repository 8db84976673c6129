"""The events and their bytes: one JSON line each, served lists of schema 3, feedback and system events of schema 1.

Invariant: `decode(encode(event, …))` gives the same event back, every field of a class is always present and in the
order of its table below, and a line contains no raw line break before its end. Lines of older versions decode to the
same events: feedback without `marks` has none, schema 1 holds a served list's items as rows (`served_items.py`), and
schemas 1 and 2 hold two fields that were always null (`schema_1.py`). Pure: no clock, no file, no socket.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from math import isfinite
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

from telemetry.errors import BadEventError
from telemetry.served_items import Items, check_rows

SCHEMA: Final = 1
SERVED_SCHEMA: Final = 3
# The first bytes of a served list's line, by schema, the newest first.
SERVED_STARTS: Final = tuple(b'{"schema":%d,"class":"served",' % schema for schema in (SERVED_SCHEMA, 2, SCHEMA))
# NumPy scalars appear in scores; refusing them would lose an event over a type.
_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY

SystemKind: TypeAlias = Literal["gap", "unclean_start", "erase"]
Mark: TypeAlias = Literal["id_conflict", "unknown_item", "clock_skew", "out_of_scale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A served list of one attempt of a request; times are RFC 3339 in UTC with milliseconds."""

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


Event: TypeAlias = Served | Feedback | System


class Record(NamedTuple):
    """An event with its producer, epoch and number; numbers are dense from 1 in each epoch."""

    event: Event
    producer: str
    epoch: int
    seq: int


_Types: TypeAlias = frozenset[type]

_TEXT: _Types = frozenset({str})
_TEXT_OR_NULL: _Types = frozenset({str, type(None)})
_INT: _Types = frozenset({int})
_INT_OR_NULL: _Types = frozenset({int, type(None)})
_NUMBER: _Types = frozenset({int, float})
_NUMBER_OR_NULL: _Types = frozenset({int, float, type(None)})
_LIST: _Types = frozenset({list})
# Columns since schema 2, rows in schema 1.
_ITEMS: _Types = frozenset({dict, list})

_HEAD = {
    "event_id": _TEXT,
    "tenant": _TEXT,
    "client_time": _TEXT_OR_NULL,
    "received_at": _TEXT,
}
_POSITION = {"producer": _TEXT, "epoch": _INT, "seq": _INT}
_TABLES: Final[dict[str, tuple[type[Event], dict[str, _Types]]]] = {
    "served": (
        Served,
        {
            **_HEAD,
            "request_id": _TEXT,
            "recommendation_id": _TEXT,
            "user_id": _TEXT_OR_NULL,
            "model": _TEXT,
            "candidate_set": _TEXT,
            "latency_ms": _NUMBER,
            "degraded": _TEXT_OR_NULL,
            "items": _ITEMS,
        },
    ),
    "feedback": (
        Feedback,
        {
            **_HEAD,
            "request_id": _TEXT,
            "type": _TEXT,
            "user_id": _TEXT,
            "item_id": _TEXT,
            "value": _NUMBER_OR_NULL,
            "recommendation_id": _TEXT_OR_NULL,
            "position": _INT_OR_NULL,
            "marks": _LIST,
        },
    ),
    "system": (
        System,
        {
            **_HEAD,
            "kind": _TEXT,
            "of_class": _TEXT_OR_NULL,
            "count": _INT_OR_NULL,
            "reason": _TEXT_OR_NULL,
            "from_seq": _INT_OR_NULL,
            "to_seq": _INT_OR_NULL,
            "user_id": _TEXT_OR_NULL,
        },
    ),
}
_SYSTEM_KINDS = frozenset({"gap", "unclean_start", "erase"})


def encode(event: Event, producer: str, epoch: int, seq: int) -> bytes:
    """Return the line of an event with its producer, epoch and number: UTF-8 JSON ending in one line feed.

    Raises:
        BadEventError: A field holds a value that JSON cannot: a lone surrogate, a foreign type, a NaN.
    """
    # Three literal dicts: a generic loop over the fields costs twice as much, on the request path.
    if type(event) is Served:
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
            "latency_ms": event.latency_ms,
            "degraded": event.degraded,
            "items": event.items.as_fields(),
        }
    elif type(event) is Feedback:
        # orjson writes a number that is not finite as null, which decodes to another event.
        if event.value is not None and not isfinite(event.value):
            raise BadEventError(f"The feedback event's value is {event.value}, which JSON cannot hold.")
        fields = {
            "schema": SCHEMA,
            "class": "feedback",
            "event_id": event.event_id,
            "tenant": event.tenant,
            "client_time": event.client_time,
            "received_at": event.received_at,
            "producer": producer,
            "epoch": epoch,
            "seq": seq,
            "request_id": event.request_id,
            "type": event.type,
            "user_id": event.user_id,
            "item_id": event.item_id,
            "value": event.value,
            "recommendation_id": event.recommendation_id,
            "position": event.position,
            "marks": event.marks,
        }
    elif type(event) is System:
        fields = {
            "schema": SCHEMA,
            "class": "system",
            "event_id": event.event_id,
            "tenant": event.tenant,
            "client_time": event.client_time,
            "received_at": event.received_at,
            "producer": producer,
            "epoch": epoch,
            "seq": seq,
            "kind": event.kind,
            "of_class": event.of_class,
            "count": event.count,
            "reason": event.reason,
            "from_seq": event.from_seq,
            "to_seq": event.to_seq,
            "user_id": event.user_id,
        }
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
    kind, table = _TABLES.get(name, (None, _POSITION)) if isinstance(name, str) else (None, _POSITION)
    if schema != SCHEMA and (schema not in (2, SERVED_SCHEMA) or kind in {Feedback, System}):
        raise BadEventError(
            f"The line is of schema {schema!r}. This version reads {SCHEMA}, and up to {SERVED_SCHEMA} of served lists."
        )
    if kind is None:
        raise BadEventError(f"{name!r} is not a class of event.")
    if kind is Feedback:
        fields.setdefault("marks", [])
    values = {}
    try:
        for field, types in table.items():
            value = fields[field]
            if type(value) not in types:
                raise BadEventError(f"Field {field!r} of the {name} event is of the wrong type.")
            values[field] = value
        for field, types in _POSITION.items():
            if type(fields[field]) not in types:
                raise BadEventError(f"Field {field!r} of the {name} event is of the wrong type.")
        if kind is Served:
            values["items"] = _items(values["items"], schema)
    except KeyError as error:
        raise BadEventError(f"The {name} event has no field {error}.") from None
    if kind is Feedback and not all(type(mark) is str for mark in values["marks"]):
        raise BadEventError("Field 'marks' of the feedback event is of the wrong type.")
    if kind is System and values["kind"] not in _SYSTEM_KINDS:
        raise BadEventError(f"{values['kind']!r} is not a kind of system event.")
    if not _is_time(values["received_at"]):
        raise BadEventError(
            f"Field 'received_at' of the {name} event is not an RFC 3339 time in UTC with milliseconds."
        )
    return Record(kind(**values), fields["producer"], fields["epoch"], fields["seq"])


def position_of(line: bytes) -> tuple[str, int, int]:
    """Return (producer, epoch, seq) of a line.

    Raises:
        BadEventError: The line is not JSON or lacks them.
    """
    try:
        fields = orjson.loads(line)
        producer, epoch, seq = fields["producer"], fields["epoch"], fields["seq"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise BadEventError("The line has no producer, epoch and seq.") from None
    if not (type(producer) is str and type(epoch) is int and type(seq) is int):
        raise BadEventError("The line has no producer, epoch and seq.")
    return producer, epoch, seq


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
