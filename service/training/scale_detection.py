"""On which scale ratings are, and what is done with those that lie outside of it (pure).

Invariant: what a model learns from lies within the scale that its manifest names, and every rating that was changed for
that is counted, and the first are named.

The scale is the declared one; else, of an archive, that of an earlier model of the same installation, as events can say
anything; else, of an archive, what the bulk of its ratings has; else, of a file, what the file has.
"""

from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.models.rating_scale import RatingScale
from service.training.interactions import Float32, Interactions

Origin: TypeAlias = Literal["declared", "model", "bulk", "data"]

_WORDS: Final[dict[Origin, str]] = {
    "declared": "declared",
    "model": "that of the model before it",
    "bulk": "that of nearly all of them",
    "data": "that of the data",
}
# What events that are no ratings count, on a scale of their own (`archived_events.VALUES`).
_EVENTS: Final = RatingScale(1.0, 5.0)
_TAIL: Final = 0.05
# With fewer ratings nothing says which of them are the strange ones.
_LEAST: Final = 20
# So few are worth a hint; where there are more, the tail belongs to the data, as with counts of plays.
_FEW: Final = 3
_FEW_SHARE: Final = 0.001
_NAMED: Final = 3


class Settled(NamedTuple):
    """A scale, and where it is known from."""

    scale: RatingScale
    origin: Origin


def settle(data: Interactions, known: Settled | None, *, is_archive: bool) -> tuple[Interactions, Settled]:
    """Put a set on its scale.

    Args:
        data: The interactions.
        known: A scale that was declared or that an earlier model had; None for neither. Of an earlier model it counts
            for an archive alone: a file may well be of another scale.
        is_archive: Whether the set was read from an archive.

    Returns:
        The set with `rating_min` and `rating_max` those of the scale, and notes on what was changed; and the scale.
    """
    given = data.ratings[_is_rating(data)]
    if not given.size:
        return data, Settled(RatingScale(data.rating_min, data.rating_max), "data")
    own, bulk = RatingScale(float(given.min()), float(given.max())), bulk_of(given)
    if known is not None and (known.origin == "declared" or is_archive):
        settled = known
    elif is_archive:
        # Too early to say that nothing else will come: the next training looks again.
        settled = Settled(_with_room_for_events(data, bulk), "bulk")
    else:
        settled = Settled(own, "data")
    on_scale = _clipped(_with_events_on(data, settled.scale), settled)
    if settled.origin == "data" and (hint := _hint(given, bulk)) is not None:
        on_scale = noted(on_scale, hint)
    return on_scale, settled


def bulk_of(ratings: NDArray[np.floating[Any]]) -> RatingScale:
    """Return the least and the largest of the ratings that do not stand far apart from nearly all others.

    Far apart is beyond the middle nine tenths by more than what those span (in the manner of Tukey's fences,
    "Exploratory data analysis", 1977). Of few ratings it is the least and the largest of all.

    Args:
        ratings: Float (n,), at least one.
    """
    if ratings.size < _LEAST:
        return RatingScale(float(ratings.min()), float(ratings.max()))
    ratings = ratings.astype(np.float64)
    low = float(np.quantile(ratings, _TAIL, method="higher"))
    high = float(np.quantile(ratings, 1 - _TAIL, method="lower"))
    reach = (high - low) or max(1.0, abs(high))
    near = ratings[(ratings >= low - reach) & (ratings <= high + reach)]
    return RatingScale(float(near.min()), float(near.max()))


def noted(data: Interactions, note: str) -> Interactions:
    """Return a set with one more note in its report."""
    return replace(data, report=replace(data.report, notes=(*data.report.notes, note)))


def _is_rating(data: Interactions) -> slice | np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if isinstance(data.rated, bool):
        return slice(None) if data.rated else slice(0)
    return data.rated


def _with_room_for_events(data: Interactions, bulk: RatingScale) -> RatingScale:
    """Return the scale of what events count, where there are any and the ratings lie within it; else the ratings'."""
    if isinstance(data.rated, bool) or data.rated.all() or not 0 <= bulk.low <= bulk.high <= _EVENTS.high:
        return bulk
    return RatingScale(min(bulk.low, _EVENTS.low), _EVENTS.high)


def _with_events_on(data: Interactions, scale: RatingScale) -> Interactions:
    """Put what events count onto the scale of the ratings; a scale up to 5 that begins between 0 and 1 is theirs."""
    if isinstance(data.rated, bool) or data.rated.all():
        return data
    if scale.high == _EVENTS.high and 0 <= scale.low <= _EVENTS.low:
        return data
    share = (data.ratings - _EVENTS.low) / (_EVENTS.high - _EVENTS.low)
    mapped = (scale.low + share * (scale.high - scale.low)).astype(np.float32)
    return replace(data, ratings=np.where(data.rated, data.ratings, mapped))


def _clipped(data: Interactions, settled: Settled) -> Interactions:
    low, high = settled.scale
    clipped = np.clip(data.ratings, np.float32(low), np.float32(high))
    places = np.flatnonzero(clipped != data.ratings)
    on_scale = replace(data, ratings=clipped, rating_min=low, rating_max=high)
    if not places.size:
        return on_scale
    named = ", ".join(
        f"{data.ratings[place]:g} by {data.users.id_of[data.user_rows[place]]!r} "
        f"of {data.items.id_of[data.item_rows[place]]!r}"
        for place in places[:_NAMED].tolist()
    )
    lie = "rating lies" if places.size == 1 else "ratings lie"
    another = "" if settled.origin == "declared" else "; if it is another, declare it with --scale LOW:HIGH"
    return noted(
        on_scale,
        f"{places.size:,} {lie} outside of the scale {low:g} to {high:g}, {_WORDS[settled.origin]}, "
        f"and counted as its nearest end, such as {named}{another}.",
    )


def _hint(ratings: Float32, bulk: RatingScale) -> str | None:
    outside = ratings[(ratings < bulk.low) | (ratings > bulk.high)]
    if not 0 < outside.size <= max(_FEW, _FEW_SHARE * ratings.size):
        return None
    farthest = outside[np.abs(outside - (bulk.low + bulk.high) / 2).argmax()]
    few = "1 rating stands" if outside.size == 1 else f"{outside.size:,} ratings stand"
    return (
        f"{few} far apart from all others, which are from {bulk.low:g} to {bulk.high:g}, one being {farthest:g}; "
        f"if that is a mistake, declare the scale with --scale {bulk}."
    )
