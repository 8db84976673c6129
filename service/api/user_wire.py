"""The shapes of what is known of a user, and how recent it is."""

from typing import Annotated, Protocol

# Before Python 3.12 pydantic cannot use the TypedDict of typing.
from typing_extensions import TypedDict

from service.api import wire
from service.api.wire import described


class Recent(Protocol):
    """A user with live events."""

    @property
    def as_of(self) -> str:
        """The time of the latest interaction, RFC 3339."""

    @property
    def events_applied(self) -> int:
        """How many live events count."""


class Interaction(TypedDict):
    """What a user did with an item."""

    item_id: Annotated[str, described("The item.")]
    type: Annotated[str, described("The action: `rating`, `purchase`, `click`, `view` or `dismiss`.")]
    value: Annotated[float | None, described("The rating, or what the action counts as; null without one.")]
    time: Annotated[str | None, described("When, RFC 3339; null if the training data has no times.")]


class KnownUser(TypedDict):
    """What is known of a user, the latest first."""

    user_id: Annotated[str, described("The user.")]
    model: Annotated[str, described("The version of the served model.")]
    trained: Annotated[bool, described("Whether the model was trained on interactions of the user.")]
    n_interactions: Annotated[int, described("How many interactions lists answer to, one for each item.")]
    interactions: Annotated[list[Interaction], described("The last of them, from training and events together.")]
    n_events: Annotated[int, described("How many events of the user the live state holds.")]
    events: Annotated[list[Interaction], described("The last of them, also of items that the model does not know.")]
    state_watermark: Annotated[str | None, described("The live state in an archived list; null without events.")]
    freshness: Annotated[wire.Freshness, described("How recent the data is.")]


def freshness(data_as_of: str, live: Recent | None) -> wire.Freshness:
    """Return how recent the data behind a list is.

    Args:
        data_as_of: That of the model.
        live: The user with live events; None without any.
    """
    if live is None:
        return {"as_of": data_as_of, "events_applied": 0}
    return {"as_of": live.as_of, "events_applied": live.events_applied}
