"""Hyperparameters of what an interaction says about its user: how recent it is, its type, and whether it is a dislike.

They are those of every algorithm whose users are sums or solutions over weighted interactions. A weight counts alike
in the training and in the fold-in of live events, because the model publishes it (`service.models.history.weights`).
"""

from dataclasses import dataclass
from typing import Annotated, Final

from service.models.history.weights import HistoryWeights
from service.training.hyperparameters import Hyperparameters
from service.training.interactions import Interactions

# The best on time splits of both MovieLens sets are 3 to 5, for all algorithms of this half-life: docs/evaluation.md.
DEFAULT_HALF_LIFE: Final = 4.0
_RATING_WEIGHT: Final = 1.0


@dataclass(frozen=True)
class WeightedHistory(Hyperparameters):
    """The base of the Configs of such algorithms."""

    half_life: Annotated[
        float | None,
        {"unit": "interactions", "least": 0, "most": 1e6, "search": (1, 200, "log")},
        "Later interactions of a user after which a weight is halved; 0 for never; "
        "if none, 4 where the data has times, else never.",
    ] = None
    half_life_days: Annotated[
        float | None,
        {"unit": "days", "least": 1e-3, "most": 1e6},
        "Days before the user's latest interaction at which a weight is halved as well; if none, days do not count.",
    ] = None
    dislike_below: Annotated[
        float,
        {"least": 0, "most": 1},
        "Share of the rating scale below which a rating is a dislike: 0.2 of 1 to 5 is 1.8; 0 for none.",
    ] = 0.2
    dislike_weight: Annotated[
        float,
        {"least": -10, "most": 10, "search": (-1, 1)},
        "Weight of a dislike or a dismissal; that of another rating is 1.",
    ] = -0.2
    purchase_weight: Annotated[
        float, {"least": -10, "most": 10}, "Weight of a purchase, and of an interaction without a rating or a type."
    ] = 1.0
    click_weight: Annotated[float, {"least": -10, "most": 10}, "Weight of a click."] = 0.8
    view_weight: Annotated[float, {"least": -10, "most": 10}, "Weight of a view."] = 0.6

    def history_weights(
        self, data: Interactions, default_half_life: float = DEFAULT_HALF_LIFE, window: int | None = None
    ) -> HistoryWeights:
        """Return the weights of histories of this data.

        Args:
            data: The training data, on its rating scale.
            default_half_life: The half-life if none is set and the data has times.
            window: The number of latest interactions that count; None for all.
        """
        half_life = self.half_life
        if half_life is None:
            half_life = default_half_life if data.has_order else 0.0
        span = data.rating_max - data.rating_min
        return HistoryWeights(
            half_life=half_life or None,
            half_life_days=self.half_life_days,
            window=window,
            type_weights=(
                *(_RATING_WEIGHT, self.purchase_weight, self.click_weight, self.view_weight),
                self.dislike_weight,
            ),
            dislike_below=data.rating_min + self.dislike_below * span if self.dislike_below and span > 0 else None,
            dislike_weight=self.dislike_weight,
        )
