"""Whether a new model may take the place of the active one, by what both reach on the same hold-out (pure).

A new model is much worse, and is published but not activated, where one of these holds:

1. It errs much more than the active model on held-out ratings that neither has learnt from, of users and items that
   both know, if there are at least `ENOUGH` of them.
2. Without so many, its measure is much worse than what the active model's manifest recorded, and also in relation to
   what a simple model reached on either hold-out (a different set of ratings may be harder to predict); or it is
   very much worse, whatever a simple model does.
3. Its measure is much worse than a simple model's on the same hold-out.

The measure is RMSE for a model that predicts ratings, against the mean rating as the simple model, and NDCG@10 for a
model that ranks, against popularity. Models of different kinds are compared with simple models alone, and a model of
the demo data is no model to defend. Much is a factor of `MUCH`, very much one of `VERY_MUCH`, which is also what it
takes where less than `ENOUGH` was held out; of NDCG, the inverse of `VERY_MUCH` in each case.
"""

from dataclasses import dataclass
from typing import Final, Literal

from service.training.evaluation.measures.prediction_error import format_measure

MUCH: Final = 1.25
VERY_MUCH: Final = 2.0
ENOUGH: Final = 100
LEAST: Final = 10
_HARDER: Final = 1.1


@dataclass(frozen=True)
class Reached:
    """What a model reached on a hold-out.

    Attributes:
        value: Its RMSE or NDCG@10.
        simple: That of the simple model on the same hold-out; None where it is not known.
    """

    value: float
    simple: float | None


@dataclass(frozen=True)
class Direct:
    """Both models on held-out ratings that neither has learnt from: their RMSE, and of how many ratings."""

    new: float
    active: float
    n: int


def much_worse(
    kind: Literal["rating", "ranking"],
    new: Reached,
    n: int,
    *,
    active: str,
    recorded: Reached | None,
    direct: Direct | None,
) -> str | None:
    """Return why a new model must not take the active one's place; None if it may.

    Args:
        kind: Of the new model.
        new: What it reached.
        n: How many interactions were held out.
        active: The active version.
        recorded: What the active model reached on its own hold-out; None if it is of another kind or not known.
        direct: Both models on the same ratings; None if there are none.
    """
    if kind == "rating":
        return _of_errors(new, n, active, recorded, direct)
    return _of_lists(new, n, active, recorded)


def _of_errors(new: Reached, n: int, active: str, recorded: Reached | None, direct: Direct | None) -> str | None:
    if direct is not None and direct.n >= ENOUGH:
        if direct.new > MUCH * direct.active:
            return (
                f"on {direct.n:,} held-out ratings that neither model has learnt from, its RMSE is "
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


def _is_far_above(new: Reached, recorded: Reached, n: int) -> bool:
    if new.value > VERY_MUCH * recorded.value:
        return True
    if n < ENOUGH or new.value <= MUCH * recorded.value or not new.simple or not recorded.simple:
        return False
    return new.value / new.simple > _HARDER * recorded.value / recorded.simple


def _of_lists(new: Reached, n: int, active: str, recorded: Reached | None) -> str | None:
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
