"""The body of a request for a list."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from service.api import item_wire
from service.api.wire import (
    DEADLINE_LIMIT_MS,
    EXPLAIN_LIMIT,
    FIELDS_LIMIT,
    ID_PATTERN,
    IDS_LIMIT,
    N_DEFAULT,
    N_LIMIT,
    NAME_PATTERN,
    OFFSET_LIMIT,
    Body,
    FieldName,
    Id,
    Integer,
)

FILTER_LIMIT: Final = 4_096
BOOSTS_LIMIT: Final = 20
PINS_LIMIT: Final = 100
SESSION_LIMIT: Final = 200
SEEDS_LIMIT: Final = 20
LISTS_LIMIT: Final = 256
FEATURES_LIMIT: Final = 32
PAGE_TOKEN_LIMIT: Final = 40_000
FILTER_EXAMPLE: Final = 'for example `genre == "Comedy" and year >= 1990 and not (tag in ["gore"])`'


class BoostIn(Body):
    """A factor for the scores of the items that match a filter."""

    filter: str = Field(min_length=1, max_length=FILTER_LIMIT, description="The filter, as for the list.")
    factor: float = Field(
        ge=0.01, le=100, allow_inf_nan=False, description="Above 1 the items rise, below 1 they sink; 0.01 to 100."
    )


class PinIn(Body):
    """An item with a fixed place in the list."""

    item_id: Id = Field(description="The item; an unknown or hidden one is ignored.")
    position: Integer = Field(ge=0, le=OFFSET_LIMIT, description="Its place in the whole list, from 0.")


class SessionItemIn(Body):
    """An interaction of a session."""

    item_id: Id = Field(description="The item; an unknown one is ignored.")
    type: Literal["rating", "view", "click", "purchase", "dismiss"] = Field(
        default="view", description="The action; `view` by default."
    )
    value: float | None = Field(
        default=None, ge=-1e9, le=1e9, allow_inf_nan=False, description="The rating; required for `rating`."
    )

    @model_validator(mode="after")
    def _rating_has_value(self) -> Self:
        if self.type == "rating" and self.value is None:
            raise ValueError("a rating needs a value")
        return self


def _session_item(value: Any) -> Any:
    return {"item_id": value} if isinstance(value, str) else value


def _or_an_id(schema: dict[str, Any]) -> None:
    text = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": ID_PATTERN}
    schema["items"] = {"anyOf": [text, schema["items"]]}


def _different_pins(pins: list[PinIn]) -> list[PinIn]:
    if len({pin.item_id for pin in pins}) < len(pins) or len({pin.position for pin in pins}) < len(pins):
        raise ValueError("must be of different items and positions")
    return pins


def _value_or_null(value: Any) -> Any:
    return None if value is None else item_wire.checked_value(value)


_FEATURE_SCHEMA: Final = {"anyOf": [*item_wire.VALUE_SCHEMA["anyOf"], {"type": "null"}]}
_Feature = Annotated[Any, AfterValidator(_value_or_null), WithJsonSchema(_FEATURE_SCHEMA)]
_UserFeatures = Annotated[
    dict[Annotated[str, AfterValidator(item_wire.checked_name)], _Feature],
    Field(max_length=FEATURES_LIMIT),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"type": "string", "pattern": NAME_PATTERN},
            "additionalProperties": _FEATURE_SCHEMA,
            "maxProperties": FEATURES_LIMIT,
        }
    ),
]


class RecommendationsRequest(Body):
    """A list for one user, for a session, of items near others, or of the popular items."""

    @model_validator(mode="after")
    def _seeds_or_session(self) -> Self:
        if self.seeds and self.session:
            raise ValueError("seeds and session cannot be given together")
        if self.seeds and self.user_features:
            raise ValueError("seeds and user_features cannot be given together")
        return self

    user_id: Id | None = Field(default=None, description="The user; without it, the popular items.")
    n: Integer = Field(default=N_DEFAULT, ge=1, le=N_LIMIT, description="How many items; 10 by default.")
    offset: Integer = Field(
        default=0, ge=0, le=OFFSET_LIMIT, description="How many of the best items to skip; 0 by default."
    )
    exclude: list[Id] = Field(default=[], max_length=IDS_LIMIT, description="Items never to return.")
    include: list[Id] | None = Field(
        default=None,
        max_length=IDS_LIMIT,
        description="The only candidates; unknown ones are ignored. Without it, the whole catalogue.",
    )
    filter: str | None = Field(
        default=None,
        min_length=1,
        max_length=FILTER_LIMIT,
        description=f"What the items must be; {FILTER_EXAMPLE}. Without it, any.",
    )
    session: list[Annotated[SessionItemIn, BeforeValidator(_session_item)]] = Field(
        default=[],
        max_length=SESSION_LIMIT,
        description="What the visitor has just done, the latest last: ids, or objects. The list answers to it, with or "
        "without a user, and leaves the items out.",
        json_schema_extra=_or_an_id,
    )
    user_features: _UserFeatures = Field(
        default={},
        description="Attributes of the user by name, such as an age or a town, at this moment: a category, several, a "
        "number or a flag each. They replace those that the model knows; null takes one back. The answer says which "
        "ones counted.",
        examples=[{"age": 27, "town": "Rome"}],
    )
    explain: Integer = Field(
        default=0,
        ge=0,
        le=EXPLAIN_LIMIT,
        description="How many items of the history to name for each item, with shares of its score; 0 by default.",
    )
    seeds: list[Id] = Field(
        default=[],
        max_length=SEEDS_LIMIT,
        description="Items whose nearest items make the list; unknown ones are ignored. The user's seen items are left "
        "out.",
    )
    boosts: list[BoostIn] = Field(
        default=[], max_length=BOOSTS_LIMIT, description="Factors for the scores of items; all that match apply."
    )
    impression_factor: Annotated[float, Field(ge=0.01, le=1, allow_inf_nan=False)] | None = Field(
        default=None,
        description="What the score of an item is multiplied by for each time that it was shown to the user and not "
        "acted on, where the installation counts impressions; by default that of the installation.",
    )
    pins: Annotated[list[PinIn], AfterValidator(_different_pins)] = Field(
        default=[],
        max_length=PINS_LIMIT,
        description="Items with a fixed place, seen or not, whether they match the filter or not.",
    )
    diversity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How much the list avoids similar items: 0, not at all, to 1, where scores hardly matter.",
    )
    page_token: str | None = Field(
        default=None,
        max_length=PAGE_TOKEN_LIMIT,
        description="`next_page_token` of the page before. Without it, the first page.",
    )
    deadline_ms: Annotated[Integer, Field(ge=1, le=DEADLINE_LIMIT_MS)] | None = Field(
        default=None,
        description="Within how many milliseconds the answer is needed; where a full list would take longer, a simpler "
        "one is returned, see `degraded`. Without it, the list takes its time.",
    )
    fields: list[FieldName] = Field(
        default=[],
        max_length=FIELDS_LIMIT,
        description="What to return of each item: `title`, or an attribute such as `genres`.",
    )


class ManyRecommendationsRequest(Body):
    """Several lists, all of which are answered or none."""

    requests: list[RecommendationsRequest] = Field(
        min_length=1, max_length=LISTS_LIMIT, description="The lists, as for one, in any order."
    )
