"""The interactions of all users as sequences, in the order of time, with their weights as inputs and as targets.

Invariant: entries are user after user, and within a user oldest first: by time, of equal times the later position of
the source is the later one; without times by position. An item occurs once in a user's sequence.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from service.models.history.user_history import RATING
from service.models.history.weights import DAY_S, HistoryWeights
from service.training.assembly import HistoryEntries
from service.training.interactions import Float32, Int32, Int64


class Sequences(NamedTuple):
    """All interactions in order.

    Attributes:
        starts: Int64 (n_users + 1,), the first entry of each user.
        users: Int32 (n,), the user of each entry.
        items: Int32 (n,), the item of each entry.
        signals: Float32 (n,), the weight of an entry in the sum that is its user, without its recency.
        inputs: Float32 (n,), its weight as an input of the regression: the same, but that a low rating counts as any
            other, since it tells as well what a user chooses next.
        targets: Float32 (n,), its weight as a target: that as an input, but at least 0.
        short_steps: Float32 (n,), the factor by which an entry multiplies the first power of all earlier weights of its
            user; 1 for the first entry of a user.
        long_steps: Float32 (n,), the same of the second power, see `HistoryWeights.long_weight`.
        n_items: Size of the catalogue.
    """

    starts: Int64
    users: Int32
    items: Int32
    signals: Float32
    inputs: Float32
    targets: Float32
    short_steps: Float32
    long_steps: Float32
    n_items: int

    @property
    def counts(self) -> Int64:
        """The number of interactions of each item, int64 (n_items,)."""
        return np.bincount(self.items, minlength=self.n_items)


def sequences(entries: HistoryEntries, weights: HistoryWeights) -> Sequences:
    """Bring the interactions of a training set into order."""
    history = entries.history
    starts = history.indptr.astype(np.int64)
    lengths = np.diff(starts)
    users = np.repeat(np.arange(lengths.size, dtype=np.int32), lengths)
    order = np.empty(users.size, dtype=np.int64)
    order[starts[users] + entries.ranks] = np.arange(users.size)
    types = np.full(users.size, RATING, np.uint8) if entries.types is None else entries.types[order]
    signals = weights.of_events(history.data[order], types).astype(np.float32)
    unrated = dataclasses.replace(weights, dislike_below=None)
    inputs = unrated.of_events(history.data[order], types).astype(np.float32)
    days = np.zeros(users.size)
    if weights.half_life_days is not None and entries.times_s is not None:
        times_s = entries.times_s[order]
        days[1:] = np.diff(times_s) / (DAY_S * weights.half_life_days)
    first = starts[:-1][lengths > 0]
    days[first] = 0
    steps = []
    for half_life in (weights.half_life, weights.long_half_life):
        step = np.exp2(-days - (0.0 if half_life is None else 1 / half_life))
        step[first] = 1
        steps.append(step.astype(np.float32))
    return Sequences(
        starts,
        users,
        history.indices[order],
        signals,
        inputs,
        np.maximum(inputs, 0),
        steps[0],
        steps[1],
        history.shape[1],
    )


def of_users(whole: Sequences, start: int, stop: int) -> Sequences:
    """Return the sequences of users start to stop, who become users 0 to stop - start; other columns are views."""
    first, last = whole.starts[start], whole.starts[stop]
    return Sequences(
        whole.starts[start : stop + 1] - first,
        whole.users[first:last] - np.int32(start),
        whole.items[first:last],
        whole.signals[first:last],
        whole.inputs[first:last],
        whole.targets[first:last],
        whole.short_steps[first:last],
        whole.long_steps[first:last],
        whole.n_items,
    )


def without_latest(whole: Sequences, n_hidden: Int64, user_rows: Int64) -> Sequences:
    """Return the sequences of some users without their latest entries.

    Args:
        n_hidden: Int64 (m,), the number of entries to leave out of each user, at most all.
        user_rows: Int64 (m,), the users, who become users 0 to m - 1.
    """
    begins = whole.starts[user_rows]
    lengths = whole.starts[user_rows + 1] - begins - n_hidden
    starts = np.concatenate([[0], np.cumsum(lengths)])
    kept = np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)
    users = np.repeat(np.arange(user_rows.size, dtype=np.int32), lengths)
    return Sequences(
        starts,
        users,
        whole.items[kept],
        whole.signals[kept],
        whole.inputs[kept],
        whole.targets[kept],
        whole.short_steps[kept],
        whole.long_steps[kept],
        whole.n_items,
    )
