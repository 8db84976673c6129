"""Request and response types and their bytes (pure): what DESIGN calls the HTTP API's shapes.

Bodies are read as strict JSON (orjson refuses NaN, Infinity, invalid UTF-8 and lone surrogates; a repeated field is
refused here), then checked by strict pydantic models, which are also what /openapi.json describes. Responses are
TypedDicts written by orjson.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

# typing's own lacks what pydantic needs to describe it before Python 3.12
from typing_extensions import TypedDict

from service.api.duplicate_fields import first_repeat, has_repeats
from service.errors import Invalid, Malformed

N_DEFAULT: Final = 10
N_LIMIT: Final = 500
PLAIN_LIMIT: Final = 20
OFFSET_LIMIT: Final = 10_000
IDS_LIMIT: Final = 5_000
EVENTS_LIMIT: Final = 1_000
_DEPTH_LIMIT: Final = 16

# No control characters (Unicode category Cc) and no lone surrogates, which have no UTF-8.
_ID: Final = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
ID_RULE: Final = "must be 1 to 128 characters without control characters"
# The same for /openapi.json, in the syntax that ECMA-262, RE2 and Python share.
ID_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]{1,128}$"
KEY_PATTERN: Final = r"^[A-Za-z0-9_-]{8,64}$"
_LEAP_SECOND: Final = re.compile(r"(T\d\d:\d\d:)60")
_KEY: Final = re.compile(KEY_PATTERN)
_EVENT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{8,72}$"

Source = Literal["personal", "similar", "popular"]
DegradationLevel = Literal["stale", "stale_model", "static"]
Durability = Literal["memory", "disk"]


def _checked_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError(ID_RULE)
    return value


def _whole(value: Any) -> Any:
    """Return a number without a fraction as an int: 10.0 is an integer to JSON Schema and to JavaScript."""
    return int(value) if type(value) is float and value.is_integer() else value


def _checked_time(value: str) -> str:
    """Return an RFC 3339 time in UTC with milliseconds; a leap second counts as the second before it."""
    try:
        moment = datetime.fromisoformat(_LEAP_SECOND.sub(r"\g<1>59", value.upper()))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in value.upper():
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-11-21T01:02:03.456Z")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time within the years 1 to 9999 in UTC") from None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z".rjust(24, "0")


Id = Annotated[
    str,
    Field(min_length=1, max_length=128, json_schema_extra={"pattern": ID_PATTERN}),
    AfterValidator(_checked_id),
]
Whole = Annotated[int, BeforeValidator(_whole)]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_checked_time)]


def _means(sentence: str) -> Any:
    return Field(description=sentence)


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RecommendationsRequest(_Body):
    """A list for one user, or for nobody in particular."""

    user_id: Id | None = Field(default=None, description="Whose list; without it, the popular items.")
    n: Whole = Field(default=N_DEFAULT, ge=1, le=N_LIMIT, description="How many items; 10 without it.")
    offset: Whole = Field(
        default=0, ge=0, le=OFFSET_LIMIT, description="How many of the best to leave out first; 0 without it."
    )
    exclude: list[Id] = Field(default=[], max_length=IDS_LIMIT, description="Items never to return.")
    include: list[Id] | None = Field(
        default=None,
        max_length=IDS_LIMIT,
        description="The only candidates; unknown ones are left out. Without it, the whole catalogue.",
    )


_A_RATING_HAS_A_VALUE: Final[dict[str, Any]] = {
    "if": {"properties": {"type": {"const": "rating"}}},
    "then": {"required": ["value"], "properties": {"value": {"type": "number"}}},
}


class EventIn(_Body):
    """One thing that a user did."""

    model_config = ConfigDict(json_schema_extra=_A_RATING_HAS_A_VALUE)

    event_id: str | None = Field(
        None,
        pattern=_EVENT_ID_PATTERN,
        description="Yours, UUIDv7 recommended; the same event of a user under it is archived once within 7 days.",
    )
    type: Literal["rating", "view", "click", "purchase", "dismiss", "impression"] = Field(description="What was done.")
    user_id: Id = Field(description="Who did it.")
    item_id: Id = Field(description="With which item.")
    value: float | None = Field(
        default=None, ge=-1e9, le=1e9, allow_inf_nan=False, description="The rating; required for `rating`."
    )
    recommendation_id: Id | None = Field(default=None, description="The list that led to it.")
    position: Annotated[int, Field(ge=0, le=OFFSET_LIMIT + N_LIMIT), BeforeValidator(_whole)] | None = Field(
        default=None, description="Its place in that list, from 0."
    )
    ts: Time | None = Field(default=None, description="When it happened, RFC 3339; without it, when it was received.")

    @model_validator(mode="after")
    def _rating_has_value(self) -> Self:
        if self.type == "rating" and self.value is None:
            raise ValueError("a rating needs a value")
        return self


class EventsRequest(_Body):
    """Events, taken all or not at all."""

    events: list[EventIn] = Field(min_length=1, max_length=EVENTS_LIMIT, description="What users did, in any order.")


class Item(TypedDict):
    """One place of a list."""

    item_id: Annotated[str, _means("The item.")]
    score: Annotated[float, _means("Higher is better; comparable within one list.")]
    source: Annotated[Source, _means("Where it came from.")]


class Freshness(TypedDict):
    """How new the state is that the list was made from."""

    as_of: Annotated[str, _means("The youngest interaction that the model knows of, RFC 3339.")]


class Shortfall(TypedDict):
    """Why a list is shorter than what was asked for."""

    requested: Annotated[int, _means("How many items were asked for.")]
    returned: Annotated[int, _means("How many there are.")]
    reason: Annotated[str, _means("Why, for people.")]


class Recommendations(TypedDict):
    """The list, as every route that gives one gives it."""

    recommendation_id: Annotated[str | None, _means("Names this list; send it back with events. Null if `static`.")]
    user_id: Annotated[str | None, _means("Whose list; null for one that is for no user in particular.")]
    model: Annotated[str, _means("The version that made it.")]
    items: Annotated[list[Item], _means("Best first.")]
    freshness: Annotated[Freshness, _means("How new its state is.")]
    degraded: Annotated[DegradationLevel | None, _means("What was missing when it was made; null if nothing was.")]
    shortfall: Annotated[Shortfall | None, _means("Why it is shorter than asked for; null if it is not.")]


class Accepted(TypedDict):
    """What became of the events of one request."""

    accepted: Annotated[int, _means("How many were taken: all.")]
    durability: Annotated[Durability, _means("Where they are now; on the disk they outlive the process.")]


class Erasure(TypedDict):
    """The receipt of a request to erase a user; keep `erase_id`."""

    erase_id: Annotated[str, _means("Names the request in the archive and in the security log.")]
    user_id: Annotated[str, _means("The user.")]
    requested_at: Annotated[str, _means("When, RFC 3339.")]
    durability: Annotated[Durability, _means("Where the request is now; on the disk it outlives the process.")]


class DataSet(TypedDict, total=False):
    """What a model learnt from."""

    source: Annotated[str, _means("The file, or what else it was.")]
    fingerprint: Annotated[str, _means("The same for the same data.")]
    n_users: Annotated[int, _means("Its users.")]
    n_items: Annotated[int, _means("Its items.")]
    n_ratings: Annotated[int, _means("Its interactions.")]
    bad_rows: Annotated[int, _means("Rows that were left out because they could not be read.")]
    duplicates: Annotated[int, _means("Rows that were left out for a later one of the same user and item.")]
    rating_min: Annotated[float, _means("The least rating.")]
    rating_max: Annotated[float, _means("The greatest rating.")]


class Model(TypedDict):
    """The served model, as it was published."""

    version: Annotated[str, _means("Its name; lists say which version made them.")]
    algorithm: Annotated[str, _means("What it was learnt with.")]
    settings: Annotated[dict[str, Any], _means("The algorithm's settings, by name.")]
    measures: Annotated[dict[str, Any], _means("What it reached on ratings held out, by name; null if not measured.")]
    data: Annotated[DataSet, _means("What it learnt from.")]
    created: Annotated[str, _means("When it was published, RFC 3339.")]
    data_as_of: Annotated[str, _means("The youngest interaction that it knows of, RFC 3339.")]
    n_users: Annotated[int, _means("Users that it knows.")]
    n_items: Annotated[int, _means("Items that it knows.")]
    n_factors: Annotated[int, _means("Length of its vectors; 0 for a model without.")]


# With a line feed at its end, so that a terminal's next prompt begins a line.
encode: Final[Callable[[Any], bytes]] = partial(orjson.dumps, option=orjson.OPT_APPEND_NEWLINE)

BodyT = TypeVar("BodyT", bound=_Body)


def decode(cls: type[BodyT], raw: bytes) -> BodyT:
    """Read a request body.

    Args:
        cls: The model to check it against.
        raw: The bytes.

    Raises:
        Malformed: It is not JSON, or nested too deeply.
        Invalid: It is JSON of the wrong content, or names a field twice; says which fields.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}.") from None
    n_fields = _count_fields(value)
    if n_fields is None:
        raise Malformed(f"The body is nested more than {_DEPTH_LIMIT} levels deep.")
    if has_repeats(raw, n_fields):
        raise bad(first_repeat(raw), "is given more than once")
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        errors = [
            _field_error(entry) for entry in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = errors[0]
        raise Invalid(f"{first['field'] or 'The body'}: {first['message']}.", errors=errors[:100]) from None


def bad(field: str, message: str) -> Invalid:
    """Return the error of one bad field, of a body, query, path or header."""
    return Invalid(f"{field}: {message}.", errors=[{"field": field, "message": message}])


def valid_id(value: str) -> bool:
    """Whether a user or item id from a path is one that we take."""
    return _ID.fullmatch(value) is not None


def valid_key(value: str) -> bool:
    """Whether an Idempotency-Key or X-Request-Id is one that we take."""
    return _KEY.fullmatch(value) is not None


def shortfall(requested: int, returned: int) -> Shortfall | None:
    """Say why a list is shorter than what was asked for, or None where it is not."""
    if returned == requested:
        return None
    return {
        "requested": requested,
        "returned": returned,
        "reason": "The catalogue holds no more items for this request.",
    }


def plain_list(item_ids: list[str]) -> bytes:
    """Return ids as one comma separated line; a comma or a per cent sign inside an id is percent-encoded."""
    return ",".join([i.replace("%", "%25").replace(",", "%2C") for i in item_ids]).encode() + b"\n"


def _count_fields(value: Any) -> int | None:
    """Count the fields of all objects in a value; None if it is nested too deeply."""
    n_fields = 0
    level = [value]
    for _ in range(_DEPTH_LIMIT):
        children: list[Any] = []
        for parent in level:
            if isinstance(parent, dict):
                n_fields += len(parent)
                children += parent.values()
            elif isinstance(parent, list):
                children += parent
        if not children:
            return n_fields
        level = children
    return None


def _field_error(entry: Any) -> dict[str, Any]:
    path = ""
    # Rows are those of `events`; a place in another list is no row of anything.
    row = entry["loc"][1] if len(entry["loc"]) > 1 and entry["loc"][0] == "events" else None
    for part in entry["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    message = str(entry["msg"]).removeprefix("Value error, ").removesuffix(".")
    result: dict[str, Any] = {"field": path, "message": message[:1].lower() + message[1:]}
    if isinstance(row, int):
        result["row"] = row
    return result
