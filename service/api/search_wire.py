"""The response types of the catalogue search, and its limits (pure)."""

from typing import Annotated, Final, NotRequired

# Before Python 3.12 pydantic cannot use the TypedDict of typing.
from typing_extensions import TypedDict

from service.api import wire

TEXT_LIMIT: Final = 256
# As ids are, but for the length.
TEXT_PATTERN: Final = rf"^[^\x00-\x1f\x7f-\x9f]{{1,{TEXT_LIMIT}}}$"
TEXT_RULE: Final = f"must be 1 to {TEXT_LIMIT} characters without control characters"


class FoundItem(TypedDict):
    """An item that was found."""

    item_id: Annotated[str, wire.described("The item.")]
    score: Annotated[float, wire.described("Higher is better; comparable within one answer.")]
    fields: NotRequired[Annotated[wire.ItemFields, wire.described("The requested fields; null for what it lacks.")]]


class FoundItems(TypedDict):
    """What a search of the catalogue has found."""

    query: Annotated[str | None, wire.described("The words that were searched for; null without.")]
    corrected: Annotated[
        str | None, wire.described("The words that were searched for instead of misspelt ones; null if there are none.")
    ]
    like: Annotated[str | None, wire.described("The item whose like were searched for; null without.")]
    user_id: Annotated[str | None, wire.described("The user whose taste counts; null without.")]
    model: Annotated[str, wire.described("The version of the model.")]
    items: Annotated[list[FoundItem], wire.described("Best first.")]
