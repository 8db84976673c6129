"""Whether a new model may become the active one (pure).

A new model is published and not activated if one of these holds:

1. Its lists lose to popularity on its own hold-out: counting would serve better.
2. Its lists are much worse than those of the active model for the same users and the same held-out interactions
   (`list_comparison`). Where the two cannot be compared so: much worse than the recorded NDCG@10 of the active model,
   also in relation to popularity on either hold-out.
3. It predicts ratings, and its RMSE is much larger than that of the active model on ratings that neither has learnt;
   or, with fewer than `ENOUGH` of those, than the recorded one, also in relation to the mean rating on either hold-out
   (other ratings may be harder to predict); or it is very much larger; or much larger than that of the mean rating.

"Much" is a factor of `MUCH`, "very much" of `VERY_MUCH`. With fewer than `ENOUGH` held-out interactions only popularity
and the mean rating are compared with, and errors must be very much larger; with fewer than `LEAST` nothing is judged. A
model of the demo data may always be replaced by one whose lists do not lose to popularity.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

from service.models.publication.activation import loses_to_popularity
from service.training.evaluation.measures.prediction_error import format_measure

MUCH: Final = 1.25
VERY_MUCH: Final = 2.0
ENOUGH: Final = 100
# With fewer held-out interactions nothing is judged.
LEAST: Final = 10
# The excess over a simple model may be larger by this factor, because hold-outs differ in difficulty.
_HARDER: Final = 1.1


@dataclass(frozen=True)
class HoldOutResult:
    """Measures on a hold-out: RMSE or NDCG@10 of a model, and of the simple model if known."""

    value: float
    simple: float | None


@dataclass(frozen=True)
class DirectComparison:
    """RMSE of both models on n held-out ratings that neither has learnt."""

    new: float
    active: float
    n: int


@dataclass(frozen=True)
class ListComparison:
    """NDCG@10 of both models for the same users and the same n held-out interactions.

    Attributes:
        how: "published": the active model as it is, on interactions that it has not learnt; "refitted": a model with
            its algorithm and settings, fitted on the training side.
    """

    new: float
    active: float
    n: int
    how: Literal["published", "refitted"]

    def as_json(self) -> dict[str, Any]:
        """Return the entry of a manifest, without the name of the active model."""
        return {"ndcg@10": self.active, "new": self.new, "n": self.n, "how": self.how}


def lists_lose(
    new: HoldOutResult, n: int, *, active: str | None, recorded: HoldOutResult | None, direct: ListComparison | None
) -> str | None:
    """Return the reason why a model's lists must not be served; None if they may.

    Args:
        new: NDCG@10 of the new model and of popularity.
        n: Number of held-out interactions.
        active: The active version; None if there is none to compare with.
        recorded: NDCG@10 of the active model on its own hold-out; None if unknown.
        direct: Both on one hold-out; None if they were not compared.
    """
    if new.simple is not None and n >= LEAST and new.value < new.simple:
        return loses_to_popularity(new.value, new.simple)
    if direct is not None:
        if direct.n < ENOUGH or direct.new * MUCH >= direct.active:
            return None
        on, again = "on the same held-out interactions", f"{active}, the active model, fitted again with its settings,"
        if direct.how == "published":
            on = f"on {direct.n:,} held-out interactions that neither model has learnt"
            again = f"{active}, the active model,"
        return f"{on} its NDCG@10 is {format_measure(direct.new)}, and that of {again} {format_measure(direct.active)}"
    if n < ENOUGH or not new.simple or recorded is None or not recorded.simple:
        return None
    if new.value * VERY_MUCH < recorded.value and (
        new.value / new.simple * VERY_MUCH < recorded.value / recorded.simple
    ):
        return (
            f"its NDCG@10 is {format_measure(new.value)}, and that of {active}, the active model, was "
            f"{format_measure(recorded.value)}"
        )
    return None


def errors_lose(
    new: HoldOutResult, n: int, *, active: str | None, recorded: HoldOutResult | None, direct: DirectComparison | None
) -> str | None:
    """Return the reason why predictions of ratings must not be served; None if they may. Arguments as `lists_lose`."""
    if direct is not None and direct.n >= ENOUGH:
        if direct.new > MUCH * direct.active:
            return (
                f"on {direct.n:,} held-out ratings that neither model has learnt, its RMSE is "
                f"{format_measure(direct.new)}, and that of {active}, the active model, {format_measure(direct.active)}"
            )
    elif recorded is not None and n >= LEAST and _is_far_above(new, recorded, n):
        return (
            f"its RMSE is {format_measure(new.value)}, and that of {active}, the active model, was "
            f"{format_measure(recorded.value)}"
        )
    factor = MUCH if n >= ENOUGH else VERY_MUCH
    if new.simple is not None and n >= LEAST and new.value > factor * new.simple:
        return (
            f"its RMSE is {format_measure(new.value)}, and that of the mean rating alone {format_measure(new.simple)}"
        )
    return None


def _is_far_above(new: HoldOutResult, recorded: HoldOutResult, n: int) -> bool:
    if new.value > VERY_MUCH * recorded.value:
        return True
    if n < ENOUGH or new.value <= MUCH * recorded.value or not new.simple or not recorded.simple:
        return False
    return new.value / new.simple > _HARDER * recorded.value / recorded.simple
