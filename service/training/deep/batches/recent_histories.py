"""The recent history before each interaction, in batches: what a network sees of a user at that moment.

Invariant: the window before an interaction holds exactly the interactions that a served model has of the user at that
moment, in the same order (`ModelSnapshot.user_history`): that of time, of equal times by the line of the source. The
weights of a window are those of `HistoryWeights.of`, to the last bit. tests/reference/recent_histories.py is the slow
equivalent.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.history.user_history import UserHistory
from service.models.history.weights import DAY_S, MOST_DISLIKES, HistoryWeights
from service.training.assembly import event_types, time_ranks
from service.training.interactions import Float32, Float64, Int32, Int64, Interactions

# Sums over windows are added in another order than those of one history, which may move a comparison of two sums.
_NEARLY = 1 + 1e-9


class HistoryWindows(NamedTuple):
    """The latest interactions of b users, latest last: a row is filled from its end.

    Attributes:
        items: Int32 (b, w), item rows; `n_items` before the first interaction. The longest history of the batch
            decides the width w, at least 1.
        values: Float32 (b, w), ratings, or what the type of event counts as; 0 before the first interaction.
        types: Uint8 (b, w), indices in `EVENT_TYPES`; 0 before the first interaction.
        times_s: Int64 (b, w), Unix seconds, 0 before the first interaction; None if the data has no times.
        sizes: Int64 (b,), the number of interactions in each window.
    """

    items: Int32
    values: Float32
    types: NDArray[np.uint8]
    times_s: Int64 | None
    sizes: Int64

    def history(self, row: int) -> UserHistory:
        """Return one window as a history, oldest first."""
        known = slice(self.items.shape[1] - int(self.sizes[row]), None)
        times_s = None if self.times_s is None else self.times_s[row, known]
        return UserHistory(self.items[row, known], self.values[row, known], self.types[row, known], times_s)

    def weights(self, how: HistoryWeights) -> Float64:
        """Return the weight of each interaction, float64 (b, w); 0 before the first one.

        The windows may be no longer than that of the weights.
        """
        n_rows, width = self.items.shape
        known = np.arange(width) >= width - self.sizes[:, np.newaxis]
        weights = how.of_events(self.values.ravel(), self.types.ravel()).reshape(n_rows, width)
        how.decay(weights, np.arange(width - 1, -1, -1))
        if how.half_life_days is not None and self.times_s is not None:
            latest_s = np.where(known, self.times_s, np.iinfo(np.int64).min).max(axis=1, keepdims=True)
            ages_s = np.where(known, latest_s - self.times_s, 0).astype(np.float64)
            weights *= np.exp2(-ages_s / (DAY_S * how.half_life_days))
        weights[~known] = 0
        dislikes, likes = -np.minimum(weights, 0).sum(axis=1), np.maximum(weights, 0).sum(axis=1)
        for row in np.flatnonzero(dislikes * _NEARLY > MOST_DISLIKES * likes):
            weights[row, width - int(self.sizes[row]) :] = how.of(self.history(int(row)))
        return weights


class RecentHistories:
    """The interactions of all users in order of time.

    Args:
        data: The interactions.
        window: The most interactions of a window.
    """

    def __init__(self, data: Interactions, window: int) -> None:
        self.window = window
        self.n_items = len(data.items)
        counts = np.bincount(data.user_rows, minlength=len(data.users))
        self.starts: Int64 = np.zeros(counts.size + 1, dtype=np.int64)
        np.cumsum(counts, out=self.starts[1:])
        self._user_rows = data.user_rows
        # The place of each interaction among all, by user and then by time.
        self.places: Int64 = self.starts[data.user_rows] + time_ranks(data)
        self.order: Int64 = np.empty(len(data), dtype=np.int64)
        self.order[self.places] = np.arange(len(data))
        self._items = data.item_rows[self.order]
        self._values = data.ratings[self.order]
        self._types = event_types(data)[self.order]
        self._times_s = None if data.timestamps is None else data.timestamps[self.order]

    def types_of(self, positions: Int64) -> NDArray[np.uint8]:
        """Return the types of interactions, given positions in the data: uint8 (b,)."""
        return self._types[self.places[positions]]

    def before(self, positions: Int64) -> HistoryWindows:
        """Return what each interaction's user did before it, given positions in the data: int64 (b,)."""
        return self.windows(self.starts[self._user_rows[positions]], self.places[positions])

    def of_users(self, user_rows: Int64) -> HistoryWindows:
        """Return the latest interactions of users, as a model that is trained on the data serves them: int64 (b,)."""
        return self.windows(self.starts[user_rows], self.starts[user_rows + 1])

    def windows(self, first: Int64, stop: Int64) -> HistoryWindows:
        """Return the last interactions of ranges.

        Args:
            first: Int64 (b,), where each range begins in `order`.
            stop: Int64 (b,), where it ends.
        """
        sizes = np.minimum(stop - first, self.window)
        width = max(int(sizes.max(initial=0)), 1)
        places = stop[:, np.newaxis] + np.arange(-width, 0)
        known = places >= (stop - sizes)[:, np.newaxis]
        if not self._items.size:
            return self._empty(sizes)
        places[~known] = 0
        items = np.where(known, self._items[places], np.int32(self.n_items))
        values = np.where(known, self._values[places], np.float32(0))
        types = np.where(known, self._types[places], np.uint8(0))
        times_s = None if self._times_s is None else np.where(known, self._times_s[places], 0)
        return HistoryWindows(items, values, types, times_s, sizes)

    def _empty(self, sizes: Int64) -> HistoryWindows:
        """Return windows of data without interactions."""
        shape = (sizes.size, 1)
        times_s = None if self._times_s is None else np.zeros(shape, dtype=np.int64)
        items = np.full(shape, self.n_items, dtype=np.int32)
        return HistoryWindows(items, np.zeros(shape, np.float32), np.zeros(shape, np.uint8), times_s, sizes)
