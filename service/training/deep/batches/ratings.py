"""Ratings of whole users as batches: some of a user's ratings are the history from which the others are learnt.

Each time that a user is drawn, a random share of the ratings is the input and the rest are the targets, so that no
rating is predicted from itself and histories of all lengths are seen (the masks of Zheng, Tang, Ding and Zhou, "A
neural autoregressive approach to collaborative filtering", ICML 2016, and of denoising autoencoders). One evaluation of
the user tower thus serves all targets of a user.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from service.models.networks.history_inputs import HistoryInputs
from service.training.data.features import DataFeatures
from service.training.deep.batches.histories import HistoryBatch, history_batch
from service.training.deep.batches.items import ItemBatch, item_batch
from service.training.deep.batches.recent_histories import RecentHistories
from service.training.deep.group.share import Rows, Share
from service.training.interactions import Float32, Float64, Int64, Interactions

# The share of a user's ratings that are the input, drawn evenly from this range.
_LEAST_SHARE: Final = 0.3
_MOST_SHARE: Final = 0.95


class RatingBatch(NamedTuple):
    """The ratings of b users, t of them to be predicted, of q items.

    Attributes:
        histories: The users.
        items: The items of the targets, each once.
        users: Int64 (t,), the place of each target's user in the batch.
        places: Int64 (t,), the place of each target's item in `items`.
        targets: Float32 (t,), ratings in the unit of the network.
        n_terms: The targets of all parts of the batch.
    """

    histories: HistoryBatch
    items: ItemBatch
    users: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    n_terms: int


class RatingDraft(NamedTuple):
    """What is drawn for a batch.

    Attributes:
        users: Int64 (b,), user rows.
        is_input: Bool (n,), which of their ratings are the histories, one user after the other; not all of them.
    """

    users: Int64
    is_input: NDArray[np.bool_]


class RatingBatches:
    """The ratings of a data set by user.

    Args:
        data: The ratings; at least one.
        features: Of its users and items.
        inputs: How histories become numbers; it reads ratings.
        ratings: Float32 (n,), in the unit of the network.
        item_means: Float32 (n_items,), in that unit.
    """

    def __init__(
        self, data: Interactions, features: DataFeatures, inputs: HistoryInputs, ratings: Float32, item_means: Float32
    ) -> None:
        self._features: Final = features
        self._inputs: Final = inputs
        histories = RecentHistories(data, inputs.window)
        order = histories.order
        self._starts: Final = histories.starts
        self._sizes: Final = np.diff(histories.starts)
        self._items: Final = data.item_rows[order].astype(np.int64)
        self._ratings: Final = ratings[order]
        self._residuals: Final = self._ratings - item_means[self._items]
        self._weights: Final[Float64] = np.ones(len(data))

    def drafts(self, batch_size: int, generator: np.random.Generator) -> Iterator[RatingDraft]:
        """Yield the users with ratings in random order, by batches of about so many ratings."""
        users = generator.permutation(np.flatnonzero(self._sizes))
        number = np.cumsum(self._sizes[users]) // batch_size
        for batch in np.split(users, np.flatnonzero(np.diff(number)) + 1):
            sizes = self._sizes[batch]
            shares = generator.uniform(_LEAST_SHARE, _MOST_SHARE, batch.size)
            is_input = generator.random(int(sizes.sum())) < np.repeat(shares, sizes)
            if not is_input.all():
                yield RatingDraft(batch, is_input)

    def batch(self, draft: RatingDraft, share: Share) -> RatingBatch:
        """Return a batch with a share of its users, and of the inputs of the items of all targets."""
        sizes = self._sizes[draft.users]
        part = share.rows_by_work(sizes)
        users, own_sizes = draft.users[part.places], sizes[part.places]
        places = self._places(draft.users)
        start = int(sizes[: part.start].sum())
        own = slice(start, start + int(own_sizes.sum()))
        is_input, own_places = draft.is_input[own], places[own]
        of_user = np.repeat(np.arange(users.size), own_sizes)
        rows = np.unique(self._items[places[~draft.is_input]])
        targets = own_places[~is_input]
        return RatingBatch(
            self._histories(users, own_places[is_input], of_user[is_input], part),
            item_batch(self._features.items, rows, share.rows(rows.size)),
            torch.from_numpy(of_user[~is_input]),
            torch.from_numpy(np.searchsorted(rows, self._items[targets])),
            torch.from_numpy(self._ratings[targets]),
            int((~draft.is_input).sum()) * part.n_copies,
        )

    def n_batches(self, batch_size: int) -> int:
        """Return about how many batches an epoch has."""
        return max(1, int(self._sizes.sum()) // batch_size)

    def histories(self, users: Int64, batch_size: int = 1024) -> Iterable[HistoryBatch]:
        """Return the whole histories of users, by batches."""
        for start in range(0, users.size, batch_size):
            batch = users[start : start + batch_size]
            places = self._places(batch)
            yield self._histories(batch, places, np.repeat(np.arange(batch.size), self._sizes[batch]))

    def _places(self, users: Int64) -> Int64:
        """Return the places of all ratings of users, one user after the other, oldest first."""
        sizes = self._sizes[users]
        stops = np.cumsum(sizes)
        places: Int64 = np.arange(sizes.sum()) + np.repeat(self._starts[users] - (stops - sizes), sizes)
        return places

    def _histories(self, users: Int64, places: Int64, of_user: Int64, rows: Rows | None = None) -> HistoryBatch:
        """Return histories of users, the latest within the window, given their places and the user of each."""
        sizes = np.bincount(of_user, minlength=users.size)
        later = np.repeat(np.cumsum(sizes), sizes) - 1 - np.arange(places.size)
        if sizes.max(initial=0) > self._inputs.window:
            places = places[later < self._inputs.window]
            sizes = np.minimum(sizes, self._inputs.window)
        return history_batch(
            self._inputs,
            self._items[places],
            sizes,
            self._weights[: places.size],
            self._residuals[places],
            self._features.users[users],
            rows,
        )
