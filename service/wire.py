"""Request and response types and their bytes (pure): what DESIGN calls the HTTP API's shapes.

Bodies are read as strict JSON (orjson refuses NaN, Infinity, invalid UTF-8 and lone surrogates), then checked by strict
pydantic models, which are also what /openapi.json describes. Responses are TypedDicts written by orjson.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

# typing's own lacks what pydantic needs to describe it before Python 3.12
from typing_extensions import TypedDict

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
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_EVENT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{8,72}$"

Source = Literal["personal", "session", "similar", "popular"]


def _checked_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError("must be 1 to 128 characters without control characters")
    return value


def _checked_time(value: str) -> str:
    """Return an RFC 3339 time in UTC with milliseconds."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in value.upper():
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-11-21T01:02:03.456Z")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time within the years 1 to 9999 in UTC") from None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z".rjust(24, "0")


Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_checked_id)]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_checked_time)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RecommendationsRequest(_Body):
    """A list for one user, or for nobody in particular."""

    user_id: Id | None = Field(default=None, description="Whose list; without it, the popular items.")
    n: int = Field(default=N_DEFAULT, ge=1, le=N_LIMIT, description="How many items.")
    offset: int = Field(default=0, ge=0, le=OFFSET_LIMIT, description="How many of the best to leave out first.")
    exclude: list[Id] = Field(default=[], max_length=IDS_LIMIT, description="Items never to return.")
    include: list[Id] | None = Field(
        default=None,
        max_length=IDS_LIMIT,
        description="The only candidates; unknown ones are left out. Without it, the whole catalogue.",
    )


class EventIn(_Body):
    """One thing that a user did."""

    event_id: str | None = Field(
        None,
        pattern=_EVENT_ID_PATTERN,
        description="Yours, UUIDv7 recommended; a repeated one is archived once within 7 days.",
    )
    type: Literal["rating", "view", "click", "purchase", "dismiss", "impression"]
    user_id: Id
    item_id: Id
    value: float | None = Field(
        default=None, ge=-1e9, le=1e9, allow_inf_nan=False, description="The rating; required for `rating`."
    )
    recommendation_id: Id | None = Field(default=None, description="The list that led to it.")
    position: int | None = Field(
        default=None, ge=0, le=OFFSET_LIMIT + N_LIMIT, description="Its place in that list, from 0."
    )
    ts: Time | None = Field(default=None, description="When it happened, RFC 3339; without it, when it was received.")

    @model_validator(mode="after")
    def _rating_has_value(self) -> Self:
        if self.type == "rating" and self.value is None:
            raise ValueError("a rating needs a value")
        return self


class EventsRequest(_Body):
    """Events, taken all or not at all."""

    events: list[EventIn] = Field(min_length=1, max_length=EVENTS_LIMIT)


class Item(TypedDict):
    """One place of a list."""

    item_id: str
    score: float
    source: str


class Freshness(TypedDict):
    """How new the state is that the list was made from."""

    events_applied: int
    as_of: str


class Shortfall(TypedDict):
    """Why a list is shorter than what was asked for."""

    requested: int
    returned: int
    reason: str


class Recommendations(TypedDict):
    """The list, as every route that gives one gives it."""

    recommendation_id: str | None
    user_id: str | None
    model: str
    items: list[Item]
    freshness: Freshness
    degraded: str | None
    shortfall: Shortfall | None


class Accepted(TypedDict):
    """What became of the events of one request."""

    accepted: int
    durability: str


class Erasure(TypedDict):
    """The receipt of a request to forget a user; keep `erase_id`."""

    erase_id: str
    user_id: str
    requested_at: str
    durability: str


encode = orjson.dumps

BodyT = TypeVar("BodyT", bound=_Body)


def decode(cls: type[BodyT], raw: bytes) -> BodyT:
    """Read a request body.

    Args:
        cls: the model to check it against.
        raw: the bytes.

    Raises:
        Malformed: it is not JSON, or nested too deeply.
        Invalid: it is JSON of the wrong content; names every bad field.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}.") from None
    if _too_deep(value):
        raise Malformed(f"The body is nested more than {_DEPTH_LIMIT} levels deep.")
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        errors = [
            _field_error(entry) for entry in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = errors[0]
        raise Invalid(f"{first['field'] or 'The body'}: {first['message']}.", errors=errors[:100]) from None


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


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH_LIMIT):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


def _field_error(entry: Any) -> dict[str, Any]:
    path = ""
    row: int | None = None
    for part in entry["loc"]:
        if isinstance(part, int):
            row = part if row is None else row
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    message = str(entry["msg"]).removeprefix("Value error, ").removesuffix(".")
    result: dict[str, Any] = {"field": path, "message": message[:1].lower() + message[1:]}
    if row is not None:
        result["row"] = row
    return result
