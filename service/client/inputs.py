"""What a caller hands to the client, as frozen dataclasses that become JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, TypedDict

EventType: TypeAlias = Literal["rating", "view", "click", "purchase", "dismiss", "impression"]


@dataclass(frozen=True, slots=True)
class Event:
    """One action of a user.

    Attributes:
        type: The action.
        user_id: The user.
        item_id: The item.
        value: The rating; needed for "rating".
        event_id: The caller's id, `[A-Za-z0-9_-]{8,72}`: the same event under the same id counts once, even if it is
            sent again by another process. Without it, the event has an id of its request, the same at both attempts.
        recommendation_id: The list in which the item was shown.
        position: The item's place in that list, from 0.
        ts: The time of the action, RFC 3339 or a datetime with a time zone; by default that of receipt.
    """

    type: EventType
    user_id: str
    item_id: str
    value: float | None = None
    event_id: str | None = None
    recommendation_id: str | None = None
    position: int | None = None
    ts: str | datetime | None = None


@dataclass(frozen=True, slots=True)
class Boost:
    """A factor for the scores of the items that match a filter: above 1 they rise, below 1 they sink."""

    filter: str
    factor: float


@dataclass(frozen=True, slots=True)
class Pin:
    """An item with a fixed place in the list, from 0."""

    item_id: str
    position: int


@dataclass(frozen=True, slots=True)
class SessionItem:
    """Something that a visitor has just done; as an event, without the user. The type is "view" by default."""

    item_id: str
    type: EventType | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """What is known of an item; it replaces an earlier record as a whole.

    Attributes:
        item_id: The item.
        title: The title; None for the one that the served model was trained with.
        attributes: All attributes: a category, several, a number or a flag each; None for those of the served model.
        hidden: Whether lists leave the item out.
        available_from: From when lists may hold it, RFC 3339 or a datetime with a time zone; None for always.
        available_until: From when they no longer do; None for never.
    """

    item_id: str
    title: str | None = None
    attributes: Mapping[str, str | int | float | bool | list[str]] | None = None
    hidden: bool = False
    available_from: str | datetime | None = None
    available_until: str | datetime | None = None


class PageOptions(TypedDict, total=False):
    """What may be asked for of every list.

    Attributes:
        offset: How many of the best items to skip.
        filter: What the items must be, such as `genre == "Comedy" and year >= 1990`.
        fields: What to return of each item: "title", or an attribute such as "genres".
        page_token: `next_page_token` of the page before, with the rest as it was.
        explain: How many items of the history to name for each item, as `because`.
        deadline_ms: Within how many milliseconds the service should answer, with a simpler list if need be.
    """

    offset: int
    filter: str | None
    fields: Sequence[str]
    page_token: str | None
    explain: int
    deadline_ms: int | None


class SearchOptions(TypedDict, total=False):
    """What may be asked for of a search.

    Attributes:
        user_id: The user whose taste counts.
        filter: What the items must be, such as `genre == "Comedy" and year >= 1990`.
        fields: What to return of each item: "title", or an attribute such as "genres".
    """

    user_id: str | None
    filter: str | None
    fields: Sequence[str]


class ListOptions(PageOptions, total=False):
    """What may be asked for of a user's list.

    Attributes:
        exclude: Items never to return.
        include: The only candidates; None for the whole catalogue.
        session: What the visitor has just done, the latest last: ids, or `SessionItem`s.
        user_features: Attributes of the user at this moment by name, such as {"age": 27}; they replace those that the
            model knows, and None takes one back.
        seeds: Items that the list is to be like.
        boosts: Factors for the scores of items; all that match apply.
        pins: Items with a fixed place.
        diversity: How much the list avoids similar items, 0 to 1.
        impression_factor: What a score is multiplied by for each time that the item was shown in vain.
    """

    exclude: Iterable[str]
    include: Iterable[str] | None
    session: Sequence[str | SessionItem]
    user_features: Mapping[str, str | int | float | bool | list[str] | None]
    seeds: Sequence[str]
    boosts: Sequence[Boost]
    pins: Sequence[Pin]
    diversity: float
    impression_factor: float | None


@dataclass(frozen=True, slots=True)
class ListQuery:
    """One list of a batch.

    Attributes:
        user_id: The user; None for the popular items.
        n: How many items.
        options: What else is asked for.
    """

    user_id: str | None
    n: int = 10
    options: ListOptions = field(default_factory=ListOptions)


def as_json(value: Event | Boost | Pin | SessionItem | ItemRecord) -> dict[str, Any]:
    """Return an input as JSON values, without the fields that are None."""
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    return {
        name: _text(each) if isinstance(each, datetime) else each for name, each in found.items() if each is not None
    }


def _text(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC.

    Raises:
        ValueError: It has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("A time needs a time zone, such as datetime.now(UTC) has.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
