"""What the types of events count as in a user's history, for training on an archive and for live lists alike.

Of a user's interactions with one item one stays: that of the highest rank, and among equals the latest.
"""

from collections.abc import Mapping
from typing import Final

# The rating that each type of event counts as; None for the event's own value.
EVENT_VALUES: Final[Mapping[str, float | None]] = {
    "rating": None,
    "purchase": 5.0,
    "click": 4.0,
    "view": 3.0,
    "dismiss": 1.0,
}
RATING_RANK: Final = 2
EVENT_RANKS: Final[Mapping[str, int]] = {"rating": RATING_RANK, "purchase": 1, "dismiss": 1, "click": 0, "view": 0}


def value_on_scale(event_type: str, value: float | None, rating_min: float, rating_max: float) -> float:
    """Return what an event counts as on a rating scale; without a scale all interactions count the same."""
    counted = EVENT_VALUES[event_type]
    if counted is None:
        counted = rating_max if value is None else value
    return min(max(counted, rating_min), rating_max)
