"""The weights of all training interactions at once, as `HistoryWeights.of` gives them for one user."""

import dataclasses

import numpy as np

from service.models.history_weights import DAY_S, HistoryWeights
from service.models.user_history import RATING
from service.training.assembly import HistoryEntries
from service.training.interactions import Float64


def entry_weights(entries: HistoryEntries, weights: HistoryWeights) -> Float64:
    """Return the weight of each interaction, 0 outside of the window: float64 (n,), in the order of the history."""
    ratings = entries.history.data
    types = np.full(ratings.size, RATING, np.uint8) if entries.types is None else entries.types
    found = weights.of_events(ratings, types)
    indptr = entries.history.indptr
    lengths = np.diff(indptr)
    later = np.repeat(lengths, lengths) - 1 - entries.ranks
    if weights.half_life is not None:
        found *= np.exp2(-later / weights.half_life)
    if weights.half_life_days is not None and entries.times_s is not None and found.size:
        is_row = lengths > 0
        latest_s = np.maximum.reduceat(entries.times_s, indptr[:-1][is_row])
        ages_s = np.repeat(latest_s, lengths[is_row]) - entries.times_s
        found *= np.exp2(-ages_s.astype(np.float64) / (DAY_S * weights.half_life_days))
    if weights.window is not None:
        found[later >= weights.window] = 0
    return found


def undecayed(weights: HistoryWeights) -> HistoryWeights:
    """Return the weights without recency, which those of an item's interactions are."""
    return dataclasses.replace(weights, half_life=None, half_life_days=None, window=None)
