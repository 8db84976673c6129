"""What a caller hands to the client, as frozen dataclasses that become JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
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


class PageOptions(TypedDict, total=False):
    """What may be asked for of every list.

    Attributes:
        offset: How many of the best items to skip.
        filter: What the items must be, such as `genre == "Comedy" and year >= 1990`.
        fields: What to return of each item: "title", or an attribute such as "genres".
        page_token: `next_page_token` of the page before, with the rest as it was.
    """

    offset: int
    filter: str | None
    fields: Sequence[str]
    page_token: str | None


class ListOptions(PageOptions, total=False):
    """What may be asked for of a user's list.

    Attributes:
        exclude: Items never to return.
        include: The only candidates; None for the whole catalogue.
        boosts: Factors for the scores of items; all that match apply.
        pins: Items with a fixed place.
    """

    exclude: Iterable[str]
    include: Iterable[str] | None
    boosts: Sequence[Boost]
    pins: Sequence[Pin]


def as_json(value: Event | Boost | Pin) -> dict[str, Any]:
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
        raise ValueError("A time of an event needs a time zone, such as datetime.now(UTC) has.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
