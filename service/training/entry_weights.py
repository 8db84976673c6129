"""The weights of all training interactions at once, as `HistoryWeights.of` gives them for one user."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.neighbour_sum import NEGLIGIBLE
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import RATING
from service.models.history.weights import DAY_S, MOST_DISLIKES, HistoryWeights
from service.training.algorithms.kernels.sparse.products import weighted_sums
from service.training.assembly import HistoryEntries, event_types
from service.training.interactions import Float32, Float64, Int32, Int64, Interactions


def entry_weights(entries: HistoryEntries, weights: HistoryWeights) -> Float64:
    """Return the weight of each interaction, 0 outside of the window: float64 (n,), in the order of the history."""
    ratings = entries.history.data
    types = np.full(ratings.size, RATING, np.uint8) if entries.types is None else entries.types
    found = weights.of_events(ratings, types)
    indptr = entries.history.indptr
    lengths = np.diff(indptr)
    later = np.repeat(lengths, lengths) - 1 - entries.ranks
    weights.decay(found, later)
    if weights.half_life_days is not None and entries.times_s is not None and found.size:
        is_row = lengths > 0
        latest_s = np.maximum.reduceat(entries.times_s, indptr[:-1][is_row])
        ages_s = np.repeat(latest_s, lengths[is_row]) - entries.times_s
        found *= np.exp2(-ages_s.astype(np.float64) / (DAY_S * weights.half_life_days))
    if weights.window is not None:
        found[later >= weights.window] = 0
    _limit_dislikes(found, lengths)
    return found


def _limit_dislikes(weights: Float64, lengths: NDArray[np.integer[Any]]) -> None:
    """Scale the weights below 0 of users down to `MOST_DISLIKES`; `lengths` are the numbers of their interactions."""
    negative = np.flatnonzero(weights < 0)
    if not negative.size:
        return
    users = np.repeat(np.arange(lengths.size), lengths)
    likes = np.bincount(users, np.maximum(weights, 0), lengths.size)
    dislikes = np.bincount(users[negative], -weights[negative], lengths.size)
    allowed = MOST_DISLIKES * likes
    # Only quotients below 1 are computed: the others may overflow.
    shares = np.divide(allowed, dislikes, out=np.ones_like(allowed), where=dislikes > allowed)
    weights[negative] *= shares[users[negative]]


def without_negligible(entries: HistoryEntries, weights: Float64) -> Float64:
    """Set the weights to 0 that a fold-in leaves out, see `NEGLIGIBLE`: float64 (n,)."""
    indptr = entries.history.indptr
    lengths = np.diff(indptr)
    sizes = np.abs(weights)
    largest = np.zeros(lengths.size)
    if sizes.size:
        largest[lengths > 0] = np.maximum.reduceat(sizes, indptr[:-1][lengths > 0])
    return np.where(sizes > NEGLIGIBLE * np.repeat(largest, lengths), weights, 0.0)


def are_positive(data: Interactions, weights: HistoryWeights) -> NDArray[np.bool_]:
    """Return which interactions have a weight above 0, bool (n,); all if none has.

    A model that learns that users choose items learns it from these alone.
    """
    positive: NDArray[np.bool_] = weights.of_events(data.ratings, event_types(data)) > 0
    return positive if positive.any() else np.ones_like(positive)


def positives(data: Interactions, weights: HistoryWeights) -> Interactions:
    """Return the interactions with a weight above 0; all if none has."""
    positive = are_positive(data, weights)
    return data if positive.all() else data.take(np.flatnonzero(positive))


class UserSums(NamedTuple):
    """The weighted sums of item vectors that are users.

    Attributes:
        indptr: Int64 (n_users + 1,), where the terms of each user begin and end.
        items: Int32 (n,), the item of each term, oldest first.
        weights: Float64 (n,), its weight.
    """

    indptr: Int64
    items: Int32
    weights: Float64


def user_sums(entries: HistoryEntries, how: FoldIn) -> UserSums:
    """Return the sums of which `decayed_sum` makes users, term by term in its order."""
    weights = entry_weights(entries, how.weights)
    exponent = how.parameters.get("norm_exponent", 0.0)
    if exponent:
        users = np.repeat(np.arange(len(entries.history.indptr) - 1), np.diff(entries.history.indptr))
        totals = np.bincount(users, np.abs(weights))
        totals[totals == 0] = 1
        weights *= totals[users] ** -exponent
    weights = without_negligible(entries, weights)
    indptr = entries.history.indptr.astype(np.int64)
    # Oldest first, as `decayed_sum` adds.
    by_time = np.empty(entries.ranks.size, dtype=np.int64)
    by_time[np.repeat(indptr[:-1], np.diff(indptr)) + entries.ranks] = np.arange(by_time.size)
    return UserSums(indptr, entries.history.indices[by_time], weights[by_time])


def folded_in(entries: HistoryEntries, how: FoldIn, inputs: Float32) -> Float32:
    """Return the users of a training set as `decayed_sum` folds them in, to the last bit: float32 (n_users, k).

    Args:
        inputs: Float32 (n_items, k), the factors of items as inputs.
    """
    return weighted_sums(*user_sums(entries, how), inputs)


def undecayed(weights: HistoryWeights) -> HistoryWeights:
    """Return the weights without recency, which those of an item's interactions are."""
    return dataclasses.replace(weights, half_life=None, half_life_days=None, window=None, long_weight=0.0)
