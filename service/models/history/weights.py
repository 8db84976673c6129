"""The weight of each interaction of a user: by how recent it is, and by what it says.

The weight of an interaction is

    type weight * 0.5 ** (number of later interactions / half_life) * 0.5 ** (age / half_life_days)

where the age is relative to the user's latest interaction, so that a weight depends on the history alone and on no
clock. A rating below `dislike_below`, and a dismissal, has `dislike_weight` in place of its type weight.

With a `long_weight` a, the middle factor is the mean of two such powers, in proportion 1 to a: the second one has the
`long_half_life`, and remembers older interactions faintly.

All weights below 0 together are at most half of those above 0; where they are more, they are scaled down. A user
without weights above 0 therefore has none below 0 either, and gets popular items: that an item is unlike what a user
dislikes is no reason to recommend it.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused
from service.models.history.user_history import DISMISS, EVENT_TYPES, RATING, UserHistory

DAY_S: Final = 86400.0
# The largest sum of weights below 0, as a share of the sum of those above 0.
MOST_DISLIKES: Final = 0.5


@dataclass(frozen=True)
class HistoryWeights:
    """How the interactions of a history are weighted.

    Attributes:
        half_life: After this many later interactions a weight is halved; None for no decay.
        half_life_days: At this age a weight is halved; None for no decay. Without times there is none.
        window: Only so many latest interactions count; None for all.
        type_weights: The weight of each type, in the order of `EVENT_TYPES`.
        dislike_below: A rating below it is a dislike; None if ratings do not matter.
        dislike_weight: The weight of a dislike.
        long_half_life: The half-life of the second power; None for no decay.
        long_weight: The proportion of the second power to the first; 0 for none.
    """

    half_life: float | None = None
    half_life_days: float | None = None
    window: int | None = None
    type_weights: tuple[float, ...] = (1.0,) * len(EVENT_TYPES)
    dislike_below: float | None = None
    dislike_weight: float = 0.0
    long_half_life: float | None = None
    long_weight: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ModelRefused: A number is out of its range.
        """
        lengths = (self.half_life, self.half_life_days, self.window, self.long_half_life)
        if any(value is not None and not 0 < value < np.inf for value in lengths):
            raise ModelRefused(f"The half-lives and the window must be above 0 and finite, not {lengths}.")
        if len(self.type_weights) != len(EVENT_TYPES):
            raise ModelRefused(f"There are {len(EVENT_TYPES)} types of events and {len(self.type_weights)} weights.")
        if not 0 <= self.long_weight < np.inf:
            raise ModelRefused(f"The weight of the long half-life must be at least 0, not {self.long_weight:g}.")
        if not np.isfinite((*self.type_weights, self.dislike_weight, self.dislike_below or 0.0)).all():
            raise ModelRefused("A weight of an event type or of a dislike is not finite.")

    def description(self) -> dict[str, Any]:
        """Return the weights as plain JSON values."""
        return {**asdict(self), "type_weights": list(self.type_weights)}

    @classmethod
    def from_description(cls, description: Any) -> "HistoryWeights":
        """Build them from `description()`.

        Raises:
            ModelRefused: A field is missing, unknown or of another type.
        """
        try:
            return cls(**{**description, "type_weights": tuple(map(float, description["type_weights"]))})
        except (KeyError, TypeError, ValueError) as error:
            raise ModelRefused(f"The history weights lack a value or have an invalid one: {error}.") from error

    def recent(self, history: UserHistory) -> UserHistory:
        """Return the interactions within the window."""
        if self.window is None or history.rows.size <= self.window:
            return history
        last = slice(-self.window, None)
        times_s = None if history.times_s is None else history.times_s[last]
        return UserHistory(history.rows[last], history.values[last], history.types[last], times_s)

    def of(self, history: UserHistory) -> NDArray[np.float64]:
        """Return the weight of each interaction of a history, which is within the window: float64 (m,)."""
        weights = self.of_events(history.values, history.types)
        n = weights.size
        self.decay(weights, np.arange(n - 1, -1, -1))
        if self.half_life_days is not None and history.times_s is not None and n:
            ages_s = (history.times_s.max() - history.times_s).astype(np.float64)
            weights *= np.exp2(-ages_s / (DAY_S * self.half_life_days))
        negative = weights < 0
        if negative.any():
            dislikes, likes = -float(weights[negative].sum()), float(weights[weights > 0].sum())
            weights[negative] *= min(1.0, MOST_DISLIKES * likes / dislikes)
        return weights

    def decay(self, weights: NDArray[np.float64], later: NDArray[np.integer[Any]]) -> None:
        """Multiply weights by their recency, in place, given the number of later interactions of each: int (m,)."""
        if self.long_weight:
            long_term = 1.0 if self.long_half_life is None else np.exp2(-later / self.long_half_life)
            short_term = 1.0 if self.half_life is None else np.exp2(-later / self.half_life)
            weights *= (short_term + self.long_weight * long_term) / (1 + self.long_weight)
        elif self.half_life is not None:
            weights *= np.exp2(-later / self.half_life)

    def of_events(self, values: NDArray[np.float32], types: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the weight of each interaction without its recency, given values and types: float64 (m,)."""
        weights = np.asarray(self.type_weights, dtype=np.float64)[types]
        disliked = types == DISMISS
        if self.dislike_below is not None:
            disliked |= (types == RATING) & (values < self.dislike_below)
        weights[disliked] = self.dislike_weight
        return weights
