"""The request and response types of the HTTP API and their bytes (pure).

Bodies are read as strict JSON (orjson refuses NaN, Infinity, invalid UTF-8 and lone surrogates; this module refuses
duplicate fields), then checked by strict pydantic models. Responses are TypedDicts written by orjson. /openapi.json
describes both.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Literal, NotRequired, Self, TypeAlias, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

# Before Python 3.12 pydantic cannot use the TypedDict of typing.
from typing_extensions import TypedDict

from service.api.duplicate_fields import first_duplicate, has_duplicates
from service.api.used_features import UsedFeatures
from service.errors import Invalid, Malformed

N_DEFAULT: Final = 10
N_LIMIT: Final = 500
PLAIN_LIMIT: Final = 20
OFFSET_LIMIT: Final = 10_000
IDS_LIMIT: Final = 5_000
EVENTS_LIMIT: Final = 1_000
FIELDS_LIMIT: Final = 32
EXPLAIN_LIMIT: Final = 20
PAGES_LIMIT: Final = 5_000
"""Items of a list over all its pages."""
# The last place of a list's last page.
_PLACE_LIMIT: Final = OFFSET_LIMIT + PAGES_LIMIT + N_LIMIT
_DEPTH_LIMIT: Final = 16
_ROWS: Final = ("events", "items")

# No control characters (Unicode category Cc), and no lone surrogates, which have no UTF-8.
_ID: Final = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
ID_RULE: Final = "must be 1 to 128 characters without control characters"
# For /openapi.json, in the syntax that ECMA-262, RE2 and Python share.
ID_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]{1,128}$"
KEY_PATTERN: Final = r"^[A-Za-z0-9_-]{8,64}$"
# Names of attributes, as in filters.
NAME_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
NAME_RULE: Final = "must be a letter or _ and up to 63 letters, digits and _"
_NAME: Final = re.compile(NAME_PATTERN)
_LEAP_SECOND: Final = re.compile(r"(T\d\d:\d\d:)60")
_KEY: Final = re.compile(KEY_PATTERN)
_EVENT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{8,72}$"

ItemFields: TypeAlias = dict[str, str | int | float | bool | list[str] | None]
Source = Literal["personal", "session", "similar", "popular", "pinned"]
ShortfallCode = Literal["catalogue", "seen", "filter", "include", "exclude", "hidden", "pages", "neighbours"]
DegradationLevel = Literal["stale", "stale_model", "popular_candidates", "trained", "cluster", "popular", "static"]
DEADLINE_LIMIT_MS: Final = 60_000
Durability = Literal["disk"]


def _checked_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError(ID_RULE)
    return value


def _checked_name(value: str) -> str:
    if not valid_name(value):
        raise ValueError(NAME_RULE)
    return value


def _integral_as_int(value: Any) -> Any:
    """Return a float without a fraction as an int: 10.0 is an integer in JSON Schema and JavaScript."""
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
FieldName = Annotated[str, Field(json_schema_extra={"pattern": NAME_PATTERN}), AfterValidator(_checked_name)]
Integer = Annotated[int, BeforeValidator(_integral_as_int)]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_checked_time)]


def described(sentence: str, *examples: str) -> Any:
    """Return the metadata of a field of an answer, for /openapi.json."""
    return Field(description=sentence, examples=list(examples) or None)


class Body(BaseModel):
    """A request body: strict, without unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_RATING_NEEDS_VALUE: Final[dict[str, Any]] = {
    "if": {"properties": {"type": {"const": "rating"}}},
    "then": {"required": ["value"], "properties": {"value": {"type": "number"}}},
}


class EventIn(Body):
    """One action of a user."""

    model_config = ConfigDict(json_schema_extra=_RATING_NEEDS_VALUE)

    event_id: str | None = Field(
        None,
        pattern=_EVENT_ID_PATTERN,
        description="The client's id, UUIDv7 recommended; a repeated event of a user is archived once within 7 days.",
    )
    type: Literal["rating", "view", "click", "purchase", "dismiss", "impression"] = Field(description="The action.")
    user_id: Id = Field(description="The user.")
    item_id: Id = Field(description="The item.")
    value: float | None = Field(
        default=None, ge=-1e9, le=1e9, allow_inf_nan=False, description="The rating; required for `rating`."
    )
    recommendation_id: Id | None = Field(default=None, description="The list in which the item was shown.")
    position: Annotated[int, Field(ge=0, le=_PLACE_LIMIT), BeforeValidator(_integral_as_int)] | None = Field(
        default=None, description="The item's place in that list, from 0."
    )
    ts: Time | None = Field(default=None, description="The time of the action, RFC 3339; by default that of receipt.")

    @model_validator(mode="after")
    def _rating_has_value(self) -> Self:
        if self.type == "rating" and self.value is None:
            raise ValueError("a rating needs a value")
        return self


class EventsRequest(Body):
    """Events, accepted all or none."""

    events: list[EventIn] = Field(min_length=1, max_length=EVENTS_LIMIT, description="Actions of users, in any order.")


class BecauseItem(TypedDict):
    """An item of the user's history, and its share of a score."""

    item_id: Annotated[str, described("The item.")]
    share: Annotated[float, described("Its share of the score.")]
    fields: NotRequired[Annotated[ItemFields, described("The requested fields; null for what the item lacks.")]]


class Because(TypedDict):
    """Where a score comes from: all shares, others and base add up to it."""

    items: Annotated[list[BecauseItem], described("The items with the largest shares above 0, the largest first.")]
    others: Annotated[float, described("The sum of the shares of all other items.")]
    base: Annotated[float, described("The rest of the score, such as the mean of ratings and biases.")]


class Item(TypedDict):
    """One place of a list."""

    item_id: Annotated[str, described("The item.")]
    score: Annotated[float, described("Higher is better; comparable within one list.")]
    source: Annotated[Source, described("Where the item comes from.")]
    fields: NotRequired[Annotated[ItemFields, described("The requested fields; null for what the item lacks.")]]
    because: NotRequired[
        Annotated[Because | None, described("Where the score comes from, if asked for; null if the model cannot tell.")]
    ]


class Freshness(TypedDict):
    """How recent the data behind a list is."""

    as_of: Annotated[str, described("The latest interaction that the list can reflect, RFC 3339.")]
    events_applied: Annotated[int, described("How many of the user's events since training the list reflects.")]


class Shortfall(TypedDict):
    """Why a list is shorter than requested."""

    requested: Annotated[int, described("How many items were requested.")]
    returned: Annotated[int, described("How many items the list has.")]
    code: Annotated[ShortfallCode, described("What ran out, stable for programs.")]
    reason: Annotated[str, described("The reason as a sentence.")]


class Recommendations(TypedDict):
    """A list of items."""

    recommendation_id: Annotated[str | None, described("The id of the list, for events. Null if `static`.")]
    user_id: Annotated[str | None, described("The user; null in a list for no particular user.")]
    model: Annotated[str, described("The version of the model.")]
    items: Annotated[list[Item], described("Best first.")]
    freshness: Annotated[Freshness, described("How recent the data is.")]
    degraded: Annotated[DegradationLevel | None, described("The degradation level; null in full service.")]
    shortfall: Annotated[Shortfall | None, described("Why the list is shorter than requested; null if it is not.")]
    next_page_token: Annotated[str | None, described("For the page after this one; null at the end and if `static`.")]
    user_features: NotRequired[Annotated[UsedFeatures, described("What became of the requested `user_features`.")]]


class ManyRecommendations(TypedDict):
    """Several lists."""

    lists: Annotated[list[Recommendations], described("One for each request, in their order.")]


class Accepted(TypedDict):
    """The receipt of accepted events."""

    accepted: Annotated[int, described("How many events were accepted: all.")]
    durability: Annotated[Durability, described("Where the events are: synced to the disk.")]


class Erasure(TypedDict):
    """The receipt of a request to erase a user; keep `erase_id`."""

    erase_id: Annotated[str, described("The id of the request in the archive and in the security log.")]
    user_id: Annotated[str, described("The user.")]
    requested_at: Annotated[str, described("The time of the request, RFC 3339.")]
    durability: Annotated[Durability, described("Where the request is: synced to the disk.")]


class FieldError(TypedDict):
    """A bad field."""

    field: Annotated[str, described("A field of the body, query or path, or a header.", "events[3].value", "n")]
    message: Annotated[str, described("What is wrong with it.")]
    row: NotRequired[Annotated[int, described("The index in `events` or `items`, from 0.")]]
    column: NotRequired[Annotated[int, described("The character of a filter at which it is wrong, from 1.")]]


class Problem(TypedDict):
    """RFC 9457; `errors` has one entry per bad field, for 422."""

    type: Annotated[str, described("The kind of error, stable for programs.", "/problems/invalid")]
    title: Annotated[str, described("The kind of error as text.")]
    status: Annotated[int, described("The HTTP status.")]
    detail: Annotated[str, described("What is wrong with this request.")]
    errors: NotRequired[Annotated[list[FieldError], described("One entry per bad field.")]]


# With a final line feed, so that a terminal's next prompt begins a line.
encode: Final[Callable[[Any], bytes]] = partial(orjson.dumps, option=orjson.OPT_APPEND_NEWLINE)

BodyT = TypeVar("BodyT", bound=Body)


def decode(cls: type[BodyT], raw: bytes) -> BodyT:
    """Parse a request body and check it against a model.

    Raises:
        Malformed: The body is not JSON, or is nested too deeply.
        Invalid: The content is wrong, or a field is given twice; names the fields.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}.") from None
    n_fields = _count_fields(value)
    if n_fields is None:
        raise Malformed(f"The body is nested more than {_DEPTH_LIMIT} levels deep.")
    if has_duplicates(raw, n_fields):
        raise invalid_field(first_duplicate(raw), "is given more than once")
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        errors = [
            _field_error(entry) for entry in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = errors[0]
        raise Invalid(f"{first['field'] or 'The body'}: {first['message']}.", errors=errors[:100]) from None


def invalid_field(field: str, message: str) -> Invalid:
    """Return the error of one bad field of a body, query, path or header; the message is the rest of a sentence."""
    return Invalid(f"{field}: {message}.", errors=[{"field": field, "message": message}])


def valid_id(value: str) -> bool:
    """Whether a text is a valid user or item id."""
    return _ID.fullmatch(value) is not None


def valid_name(value: str) -> bool:
    """Whether a text is a valid name of an attribute."""
    return _NAME.fullmatch(value) is not None


def valid_key(value: str) -> bool:
    """Whether a text is a valid Idempotency-Key or X-Request-Id."""
    return _KEY.fullmatch(value) is not None


def invalid_text(field: str, message: str, column: int) -> Invalid:
    """Return the error of a field whose text is wrong at a character, from 1."""
    message = f"{message} (column {column})"
    return Invalid(f"{field}: {message}.", errors=[{"field": field, "message": message, "column": column}])


def plain_list(item_ids: list[str]) -> bytes:
    """Return ids as one comma-separated line; commas and percent signs inside an id are percent-encoded."""
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
    # A row is an index in `events` or `items`; other lists have none.
    row = entry["loc"][1] if len(entry["loc"]) > 1 and entry["loc"][0] in _ROWS else None
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
