"""The rating scale of a set, and ratings outside of it.

Invariant: ratings lie within the scale that the manifest names; every rating that was clipped is counted, and the first
are named. The scale is the declared one; else, for an archive, whose events may hold any number, that of an earlier
model of the installation, or that of the bulk of the ratings; else, for files, also beside an archive, that of the
files.
"""

from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.models.history.event_values import DEFAULT_VALUES, EVENT_SCALE, EventValues
from service.models.history.rating_scale import RatingScale
from service.models.history.user_history import RATING
from service.training.interactions import Float32, Interactions

Origin: TypeAlias = Literal["declared", "model", "bulk", "data"]

_WORDS: Final[dict[Origin, str]] = {
    "declared": "declared",
    "model": "that of the model before it",
    "bulk": "that of nearly all of them",
    "data": "that of the data",
}
_TAIL: Final = 0.05
# With fewer ratings, outliers cannot be identified.
_MIN_RATINGS: Final = 20
# At most this many outliers cause a hint; a longer tail belongs to the data, as with counts of plays.
_FEW: Final = 3
_FEW_SHARE: Final = 0.001
_NAMED: Final = 3


class SettledScale(NamedTuple):
    """A scale and its origin."""

    scale: RatingScale
    origin: Origin


def settle(
    data: Interactions, known: SettledScale | None, *, is_archive: bool, values: EventValues = DEFAULT_VALUES
) -> tuple[Interactions, SettledScale]:
    """Put a set on its scale.

    Args:
        known: The declared scale or that of an earlier model, which applies to an archive alone.
        is_archive: Whether the set was read from an archive.
        values: The ratings that events of other types count as.

    Returns:
        The set with the ends of the scale and notes on clipped ratings, and the scale.
    """
    given = data.ratings[_is_rating(data)]
    if not given.size:
        valued = _with_values(data, values.on_scale(EVENT_SCALE))
        scale = RatingScale(float(valued.ratings.min()), float(valued.ratings.max()))
        return replace(valued, rating_min=scale.low, rating_max=scale.high), SettledScale(scale, "data")
    own, bulk = RatingScale(float(given.min()), float(given.max())), bulk_of(given)
    if known is not None and (known.origin == "declared" or (is_archive and data.file_scale is None)):
        settled = known
    elif data.file_scale is not None:
        settled = SettledScale(data.file_scale, "data")
    elif is_archive:
        # Estimated again by the next training, because later events may widen it.
        settled = SettledScale(_with_room_for_events(data, bulk), "bulk")
    else:
        settled = SettledScale(own, "data")
    on_scale = _clipped(_with_values(data, values.on_scale(settled.scale)), settled)
    if settled.origin == "data" and data.file_scale is None and (hint := _hint(given, bulk)) is not None:
        on_scale = noted(on_scale, hint)
    return on_scale, settled


def bulk_of(ratings: NDArray[np.floating[Any]]) -> RatingScale:
    """Return the range of ratings, float (n,), without outliers.

    An outlier lies beyond the middle nine tenths by more than their range (after Tukey's fences, "Exploratory data
    analysis", 1977). A few ratings have no outliers.
    """
    if ratings.size < _MIN_RATINGS:
        return RatingScale(float(ratings.min()), float(ratings.max()))
    ratings = ratings.astype(np.float64)
    low = float(np.quantile(ratings, _TAIL, method="higher"))
    high = float(np.quantile(ratings, 1 - _TAIL, method="lower"))
    reach = (high - low) or max(1.0, abs(high))
    near = ratings[(ratings >= low - reach) & (ratings <= high + reach)]
    return RatingScale(float(near.min()), float(near.max()))


def noted(data: Interactions, note: str) -> Interactions:
    """Return a set with another note in its report."""
    return replace(data, report=replace(data.report, notes=(*data.report.notes, note)))


def _is_rating(data: Interactions) -> slice | np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if isinstance(data.rated, bool):
        return slice(None) if data.rated else slice(0)
    return data.rated


def _with_room_for_events(data: Interactions, bulk: RatingScale) -> RatingScale:
    """Return the bulk, widened to the scale of events if there are such values and the ratings lie within it."""
    if isinstance(data.rated, bool) or data.rated.all() or not 0 <= bulk.low <= bulk.high <= EVENT_SCALE.high:
        return bulk
    return RatingScale(min(bulk.low, EVENT_SCALE.low), EVENT_SCALE.high)


def _with_values(data: Interactions, values: tuple[float, ...]) -> Interactions:
    """Give events that are no ratings the value of their type; without types in the data they keep theirs."""
    data = replace(data, event_values=values)
    if data.types is None:
        return data
    of_types = np.array(values, dtype=np.float32)[data.types]
    return replace(data, ratings=np.where(data.types == RATING, data.ratings, of_types))


def _clipped(data: Interactions, settled: SettledScale) -> Interactions:
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
