"""The settings of lists: what live events change in them, and how some of them explore."""

from dataclasses import dataclass
from typing import Annotated

from service.errors import UsageError
from service.models.history.event_values import EVENT_VALUES


@dataclass(frozen=True)
class LiveListConfig:
    """The use of live events in a replica's lists."""

    seen_types: Annotated[
        str,
        {"env": "RECOLLECT_LIVE_SEEN_TYPES", "unit": "types"},
        "The types of events, separated by commas, whose items are left out of the user's lists from then on; `none` "
        "for none. Items of training interactions are always left out.",
    ] = "rating,purchase,dismiss"
    pending_events: Annotated[
        int,
        {"env": "RECOLLECT_LIVE_PENDING_EVENTS", "unit": "events", "least": 1},
        "How many events a replica applies to its own lists before they have come back through the feed; of more, the "
        "oldest wait for the feed.",
    ] = 50_000
    impression_factor: Annotated[
        float,
        {"env": "RECOLLECT_IMPRESSION_FACTOR", "unit": "factor", "least": 0.01, "most": 1},
        "What the score of an item is multiplied by for each time that it was shown to the user and not acted on, "
        "where impressions count (RECOLLECT_LIVE_IMPRESSIONS); 1 for no effect.",
    ] = 1.0

    @property
    def seen(self) -> frozenset[str]:
        """The types of events whose items are left out.

        Raises:
            UsageError: A type does not exist; `from_env` checks it.
        """
        names = frozenset(name.strip() for name in self.seen_types.split(","))
        if names == {"none"}:
            return frozenset()
        unknown = sorted(names.difference(EVENT_VALUES))
        if unknown:
            raise UsageError(
                f"RECOLLECT_LIVE_SEEN_TYPES: {unknown[0]!r} is no type of event; there are {', '.join(EVENT_VALUES)}."
            )
        return names


@dataclass(frozen=True)
class ExplorationConfig:
    """The lists that explore, see docs/api.md."""

    share: Annotated[
        float,
        {"env": "RECOLLECT_EXPLORATION_SHARE", "unit": "share", "least": 0, "most": 1},
        "The share of lists whose last places are sampled, with the probabilities in the served event.",
    ] = 0.0
    head: Annotated[
        float,
        {"env": "RECOLLECT_EXPLORATION_HEAD", "unit": "share", "least": 0, "most": 1},
        "The share of the places of such a list that stay as ranked.",
    ] = 0.5
    pool: Annotated[
        float,
        {"env": "RECOLLECT_EXPLORATION_POOL", "unit": "items", "least": 1, "most": 100},
        "How many of the best items there are for each sampled place.",
    ] = 5.0
    temperature: Annotated[
        float,
        {"env": "RECOLLECT_EXPLORATION_TEMPERATURE", "unit": "standard deviations", "least": 0.01, "most": 100},
        "The higher, the more even are the probabilities of the items that a place is sampled from.",
    ] = 1.0
