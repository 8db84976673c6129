"""What the service answers, as frozen dataclasses.

Invariant: each has the fields of the API's answer of its name; a test holds the two together. Fields that a newer
service adds are ignored, so that an older client goes on working.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

FieldValue: TypeAlias = str | int | float | bool | list[str] | None


@dataclass(frozen=True, slots=True)
class BecauseItem:
    """An item of the user's history, and its share of a score.

    Attributes:
        item_id: The item.
        share: Its share of the score.
        fields: The requested fields; None if no fields were requested.
    """

    item_id: str
    share: float
    fields: Mapping[str, FieldValue] | None = None


@dataclass(frozen=True, slots=True)
class Because:
    """Where a score comes from: all shares, others and base add up to it.

    Attributes:
        items: The items with the largest shares above 0, the largest first.
        others: The sum of the shares of all other items.
        base: The rest of the score.
    """

    items: tuple[BecauseItem, ...]
    others: float
    base: float


@dataclass(frozen=True, slots=True)
class Item:
    """One place of a list.

    Attributes:
        item_id: The item.
        score: Higher is better; comparable within one list.
        source: Where the item comes from: "personal", "similar", "popular" or "pinned".
        fields: The requested fields, None for what the item lacks; None if no fields were requested.
        because: Where the score comes from; None if that was not asked for, or the model cannot tell.
    """

    item_id: str
    score: float
    source: str
    fields: Mapping[str, FieldValue] | None = None
    because: Because | None = None


@dataclass(frozen=True, slots=True)
class Freshness:
    """How recent the data behind a list is.

    Attributes:
        as_of: The latest interaction that the list can reflect, RFC 3339.
        events_applied: How many of the user's events since training the list reflects.
    """

    as_of: str
    events_applied: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a list is shorter than requested.

    Attributes:
        requested: How many items were requested.
        returned: How many items the list has.
        code: What ran out, stable for programs.
        reason: The reason as a sentence.
    """

    requested: int
    returned: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class UsedFeatures:
    """What became of the features of the user that a request gave, by name.

    Attributes:
        used: The list answers to them.
        unknown: The served model does not know the feature, or not this value, which counts as unknown.
    """

    used: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recommendations:
    """A list of items; iterating it yields the items.

    Attributes:
        recommendation_id: The id of the list, to be sent with events; None for a static list.
        user_id: The user; None in a list for no particular user.
        model: The version of the model.
        items: Best first.
        freshness: How recent the data is.
        degraded: The degradation level; None in full service.
        shortfall: Why the list is shorter than requested; None if it is not.
        next_page_token: For the page after this one; None at the end.
        user_features: What became of the requested features of the user; None if none were given.
    """

    recommendation_id: str | None
    user_id: str | None
    model: str
    items: tuple[Item, ...]
    freshness: Freshness
    degraded: str | None
    shortfall: Shortfall | None
    next_page_token: str | None = None
    user_features: UsedFeatures | None = None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def item_ids(self) -> list[str]:
        """The ids of the items, best first."""
        return [item.item_id for item in self.items]


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of a batch, in the order of their requests."""

    lists: tuple[Recommendations, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receipt of accepted events.

    Attributes:
        accepted: How many events were accepted: all.
        durability: Where the events are: synced to the disk.
    """

    accepted: int
    durability: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of a request to erase a user.

    Attributes:
        erase_id: The id of the request in the archive and in the security log.
        user_id: The user.
        requested_at: The time of the request, RFC 3339.
        durability: Where the request is: synced to the disk.
    """

    erase_id: str
    user_id: str
    requested_at: str
    durability: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The served model as published.

    Attributes:
        version: The version, which every list names.
        algorithm: The algorithm.
        settings: The hyperparameters by name.
        measures: The measures on held-out interactions by name.
        selection: How the algorithm was chosen; None in a model of an older release.
        data: The training data.
        created: The time of publication, RFC 3339.
        data_as_of: The latest interaction in the training data, RFC 3339.
        n_users: Number of users.
        n_items: Number of items.
        n_factors: Number of factors; 0 for a model without factors.
        embedding_space: The fingerprint of its embedding space, for candidates; None without factors.
        user_features: The features of users that lists answer to, by name.
    """

    version: str
    algorithm: str
    settings: Mapping[str, Any]
    measures: Mapping[str, Any]
    selection: Mapping[str, Any] | None
    data: Mapping[str, Any]
    created: str
    data_as_of: str
    n_users: int
    n_items: int
    n_factors: int
    embedding_space: str | None = None
    user_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemDetails:
    """What is known of an item.

    Attributes:
        item_id: The item.
        title: The title; None without one.
        attributes: The attributes by name.
        hidden: Whether lists leave the item out.
        available_from: From when lists may hold it, RFC 3339; None for always.
        available_until: From when they no longer do, RFC 3339; None for never.
        trained: Whether the served model was trained on interactions with the item.
    """

    item_id: str
    title: str | None
    attributes: Mapping[str, FieldValue]
    hidden: bool
    available_from: str | None
    available_until: str | None
    trained: bool


@dataclass(frozen=True, slots=True)
class FoundItem:
    """An item that a search has found.

    Attributes:
        item_id: The item.
        score: Higher is better; comparable within one answer.
        fields: The requested fields, None for what the item lacks; None if no fields were requested.
    """

    item_id: str
    score: float
    fields: Mapping[str, FieldValue] | None = None


@dataclass(frozen=True, slots=True)
class FoundItems:
    """What a search of the catalogue has found; iterating it yields the items.

    Attributes:
        query: The words that were searched for; None without.
        corrected: The words that were searched for instead of misspelt ones; None if there are none.
        like: The item whose like were searched for; None without.
        user_id: The user whose taste counts; None without.
        model: The version of the model.
        items: Best first.
    """

    query: str | None
    corrected: str | None
    like: str | None
    user_id: str | None
    model: str
    items: tuple[FoundItem, ...]

    def __iter__(self) -> Iterator[FoundItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class ItemReceipt:
    """The receipt of a change of an item.

    Attributes:
        item_id: The item.
        event_id: The id of the change in the archive.
        received_at: The time of the change, RFC 3339; the latest one counts.
        durability: Where the change is: synced to the disk.
    """

    item_id: str
    event_id: str
    received_at: str
    durability: str


@dataclass(frozen=True, slots=True)
class Interaction:
    """What a user did with an item.

    Attributes:
        item_id: The item.
        type: The action.
        value: The rating, or what the action counts as; None without one.
        time: When, RFC 3339; None if the training data has no times.
    """

    item_id: str
    type: str
    value: float | None
    time: str | None


@dataclass(frozen=True, slots=True)
class KnownUser:
    """What is known of a user, the latest first.

    Attributes:
        user_id: The user.
        model: The version of the served model.
        trained: Whether the model was trained on interactions of the user.
        n_interactions: How many interactions lists answer to, one for each item.
        interactions: The last of them, from training and events together.
        n_events: How many events of the user the live state holds.
        events: The last of them, also of items that the model does not know.
        state_watermark: The live state in an archived list; None without events.
        freshness: How recent the data is.
    """

    user_id: str
    model: str
    trained: bool
    n_interactions: int
    interactions: tuple[Interaction, ...]
    n_events: int
    events: tuple[Interaction, ...]
    state_watermark: str | None
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class FieldError:
    """A bad field of a refused request.

    Attributes:
        field: A field of the body, query or path, or a header.
        message: What is wrong with it.
        row: The index in `events`, from 0; None elsewhere.
        column: The character of a filter at which it is wrong, from 1; None elsewhere.
    """

    field: str
    message: str
    row: int | None = None
    column: int | None = None
