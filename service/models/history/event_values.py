"""What the types of events count as in a user's history, for training on an archive and for live lists alike.

A history has one of a user's interactions with an item: that of the highest rank, and among equals the latest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from service.models.history.event_types import EVENT_TYPES
from service.models.history.rating_scale import RatingScale

# The scale of the values of events that are no ratings.
EVENT_SCALE: Final = RatingScale(1.0, 5.0)
RATING_RANK: Final = 2
EVENT_RANKS: Final[Mapping[str, int]] = {"rating": RATING_RANK, "purchase": 1, "dismiss": 1, "click": 0, "view": 0}


@dataclass(frozen=True)
class EventValues:
    """The rating from 1 to 5 that each type of event counts as; mapped to the scale of the ratings of a model."""

    purchase: Annotated[
        float,
        {"env": "RECOLLECT_VALUE_PURCHASE", "unit": "rating", "least": 1, "most": 5},
        "The rating from 1 to 5 that a purchase counts as, for models that predict ratings.",
    ] = 5.0
    click: Annotated[
        float,
        {"env": "RECOLLECT_VALUE_CLICK", "unit": "rating", "least": 1, "most": 5},
        "The rating from 1 to 5 that a click counts as.",
    ] = 4.0
    view: Annotated[
        float,
        {"env": "RECOLLECT_VALUE_VIEW", "unit": "rating", "least": 1, "most": 5},
        "The rating from 1 to 5 that a view counts as.",
    ] = 3.0
    dismiss: Annotated[
        float,
        {"env": "RECOLLECT_VALUE_DISMISS", "unit": "rating", "least": 1, "most": 5},
        "The rating from 1 to 5 that a dismissal counts as.",
    ] = 1.0

    def on_scale(self, scale: RatingScale) -> tuple[float, ...]:
        """Return the value of each of `EVENT_TYPES` on a scale; of a rating without a value it is the largest.

        Values stay as they are on a scale that ends at 5 and begins between 0 and 1.
        """
        values = (EVENT_SCALE.high, self.purchase, self.click, self.view, self.dismiss)
        if scale.high == EVENT_SCALE.high and 0 <= scale.low <= EVENT_SCALE.low:
            return values
        share = (scale.high - scale.low) / (EVENT_SCALE.high - EVENT_SCALE.low)
        return tuple(scale.low + (value - EVENT_SCALE.low) * share for value in values)


DEFAULT_VALUES: Final = EventValues()
# The rating that each type of event counts as by default; None for the event's own value.
EVENT_VALUES: Final[Mapping[str, float | None]] = {
    type_: None if type_ == "rating" else value
    for type_, value in zip(EVENT_TYPES, DEFAULT_VALUES.on_scale(EVENT_SCALE), strict=True)
}
