"""The request and response types of the item catalogue (pure); `wire` has the types of lists and events."""

from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

# Before Python 3.12 pydantic cannot use the TypedDict of typing.
from typing_extensions import TypedDict

from service.api import wire
from service.models.items.record import TITLE

ITEMS_LIMIT: Final = 1_000
ATTRIBUTES_LIMIT: Final = 32
VALUES_LIMIT: Final = 100
TEXT_LIMIT: Final = 256
TITLE_LIMIT: Final = 512
NUMBER_LIMIT: Final = 10**15
# `title` is a field of its own, and `schema` would look like the start of a line in a damaged write-ahead log.
RESERVED_NAMES: Final = frozenset({TITLE, "schema"})


def checked_name(name: str) -> str:
    """Return the name of an attribute.

    Raises:
        ValueError: It is not one.
    """
    if name in RESERVED_NAMES or not wire.valid_name(name):
        raise ValueError(f"{wire.NAME_RULE}, and not {' or '.join(sorted(RESERVED_NAMES))}")
    return name


def checked_value(value: Any) -> Any:
    """Return the value of an attribute.

    Raises:
        ValueError: It is not one.
    """
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= NUMBER_LIMIT) or _is_text(value):
        return value
    if isinstance(value, list) and len(value) <= VALUES_LIMIT and all(map(_is_text, value)):
        return value
    raise ValueError(
        f"must be a text of 1 to {TEXT_LIMIT} characters, up to {VALUES_LIMIT} of them, a number of up to"
        f" {NUMBER_LIMIT:.0e}, true or false"
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= TEXT_LIMIT


_TEXT_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT}
VALUE_SCHEMA: Final = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "number", "minimum": -NUMBER_LIMIT, "maximum": NUMBER_LIMIT},
        _TEXT_SCHEMA,
        {"type": "array", "items": _TEXT_SCHEMA, "maxItems": VALUES_LIMIT},
    ]
}
_Value = Annotated[Any, AfterValidator(checked_value), WithJsonSchema(VALUE_SCHEMA)]
_Attributes = Annotated[
    dict[Annotated[str, AfterValidator(checked_name)], _Value],
    Field(max_length=ATTRIBUTES_LIMIT),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"type": "string", "pattern": wire.NAME_PATTERN},
            "additionalProperties": VALUE_SCHEMA,
            "maxProperties": ATTRIBUTES_LIMIT,
        }
    ),
]


class ItemRecordIn(wire.Body):
    """What is known of an item."""

    title: str | None = Field(
        default=None,
        min_length=1,
        max_length=TITLE_LIMIT,
        description="The title; without it, the one that the served model was trained with.",
    )
    attributes: _Attributes | None = Field(
        default=None,
        description="All attributes: a category, several, a number or a flag each; without this field, those that the"
        " served model was trained with.",
    )
    hidden: bool = Field(default=False, description="Whether lists leave the item out; false by default.")
    available_from: wire.Time | None = Field(
        default=None, description="The time from which lists may hold the item, RFC 3339; always, by default."
    )
    available_until: wire.Time | None = Field(
        default=None, description="The time from which lists leave the item out again, RFC 3339; never, by default."
    )

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> Self:
        # Both are in UTC with milliseconds, so that the order of the texts is that of the times.
        if self.available_from and self.available_until and self.available_from >= self.available_until:
            raise ValueError("available_until must be later than available_from")
        return self


class ItemIn(ItemRecordIn):
    """An item and what is known of it."""

    item_id: wire.Id = Field(description="The item.")


class ItemsRequest(wire.Body):
    """Items to write, accepted all or none."""

    items: list[ItemIn] = Field(
        min_length=1, max_length=ITEMS_LIMIT, description="The items; of one that occurs twice the last record stays."
    )


class ItemReceipt(TypedDict):
    """The receipt of a change of an item."""

    item_id: Annotated[str, wire.described("The item.")]
    event_id: Annotated[str, wire.described("The id of the change in the archive.")]
    received_at: Annotated[str, wire.described("The time of the change, RFC 3339; the latest one counts.")]
    durability: Annotated[wire.Durability, wire.described("Where the change is: synced to the disk.")]


class ItemsAccepted(TypedDict):
    """The receipt of written items."""

    accepted: Annotated[int, wire.described("How many items were accepted: all.")]
    durability: Annotated[wire.Durability, wire.described("Where they are: synced to the disk.")]


class ItemDetails(TypedDict):
    """What is known of an item."""

    item_id: Annotated[str, wire.described("The item.")]
    title: Annotated[str | None, wire.described("The title; null without one.")]
    attributes: Annotated[dict[str, str | int | float | bool | list[str]], wire.described("The attributes by name.")]
    hidden: Annotated[bool, wire.described("Whether lists leave the item out.")]
    available_from: Annotated[str | None, wire.described("From when lists may hold it, RFC 3339; null for always.")]
    available_until: Annotated[str | None, wire.described("From when they no longer do, RFC 3339; null for never.")]
    trained: Annotated[bool, wire.described("Whether the served model was trained on interactions with the item.")]
