"""Whether a new model may replace the active one.

A new model is much worse, and is published but not activated, if one of these holds:

1. Its error is much larger than that of the active model on at least `ENOUGH` held-out ratings that neither has learnt,
   of users and items that both know.
2. With fewer such ratings: its measure is much worse than the recorded one of the active model, also in relation to a
   simple model on either hold-out (other ratings may be harder to predict); or it is very much worse.
3. Its measure is much worse than that of a simple model on the same hold-out.

The measure is RMSE for a model that predicts ratings, with the mean rating as the simple model, and NDCG@10 for a model
that ranks, with popularity as the simple model. Models of different kinds are compared with simple models alone, and a
model of the demo data may always be replaced. "Much" is a factor of `MUCH`, "very much" of `VERY_MUCH`, which also
applies if fewer than `ENOUGH` ratings are held out; for NDCG it is the inverse of `VERY_MUCH` in each case.
"""

from dataclasses import dataclass
from typing import Final, Literal

from service.training.evaluation.measures.prediction_error import format_measure

MUCH: Final = 1.25
VERY_MUCH: Final = 2.0
ENOUGH: Final = 100
# With fewer held-out ratings no error is judged.
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


def much_worse(
    kind: Literal["rating", "ranking"],
    new: HoldOutResult,
    n: int,
    *,
    active: str,
    recorded: HoldOutResult | None,
    direct: DirectComparison | None,
) -> str | None:
    """Return the reason why a new model must not replace the active one; None if it may.

    Args:
        n: Number of held-out interactions.
        recorded: The result of the active model on its own hold-out; None if unknown or of another kind.
        direct: Both models on the same ratings; None if there are none.
    """
    if kind == "rating":
        return _of_errors(new, n, active, recorded, direct)
    return _of_lists(new, n, active, recorded)


def _of_errors(
    new: HoldOutResult, n: int, active: str, recorded: HoldOutResult | None, direct: DirectComparison | None
) -> str | None:
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


def _of_lists(new: HoldOutResult, n: int, active: str, recorded: HoldOutResult | None) -> str | None:
    if n < ENOUGH or not new.simple:
        return None
    if new.value * VERY_MUCH < new.simple:
        return (
            f"its NDCG@10 is {format_measure(new.value)}, and that of a list by popularity {format_measure(new.simple)}"
        )
    if recorded is None or not recorded.simple or new.value * VERY_MUCH >= recorded.value:
        return None
    if new.value / new.simple * VERY_MUCH < recorded.value / recorded.simple:
        return (
            f"its NDCG@10 is {format_measure(new.value)}, and that of {active}, the active model, was "
            f"{format_measure(recorded.value)}"
        )
    return None
