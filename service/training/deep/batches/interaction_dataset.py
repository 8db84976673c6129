"""Interactions as a dataset of PyTorch: each with its user's attributes and what the user did before it.

Map-style, and fetched by the batch (`__getitems__`), so that a batch is a few operations on arrays. A batch is a
function of the data and the indices alone, in any worker process.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from service.models.history.weights import HistoryWeights
from service.training.data.features import DataFeatures, features_of_items
from service.training.deep.batches.recent_histories import RecentHistories
from service.training.interactions import Int64, Interactions


class InteractionBatch(NamedTuple):
    """b interactions, as tensors.

    Attributes:
        users: Int64 (b,), user rows.
        items: Int64 (b,), item rows.
        ratings: Float32 (b,), in units of the rating scale.
        weights: Float32 (b,), the weight of each interaction by its type, without recency; below 0 for a dislike.
        attributes: Int64 (b, c), a category for each column of users, see `FeatureEncoder.user_sizes`.
        history: Int64 (b, w), the item rows before the interaction, latest last; `n_items` where there is none.
        history_values: Float32 (b, w), their ratings; 0 where there is none.
        history_weights: Float32 (b, w), see `HistoryWeights`; 0 where there is none.
        categories: Int64 (m,), the categories of the items, one item after the other; for `torch.nn.EmbeddingBag`.
        category_offsets: Int64 (b,), where each item begins in `categories`.
    """

    users: torch.Tensor
    items: torch.Tensor
    ratings: torch.Tensor
    weights: torch.Tensor
    attributes: torch.Tensor
    history: torch.Tensor
    history_values: torch.Tensor
    history_weights: torch.Tensor
    categories: torch.Tensor
    category_offsets: torch.Tensor


class InteractionDataset(Dataset[InteractionBatch]):
    """The interactions of a data set, in the order of the data.

    Args:
        data: The interactions; histories are of all of them.
        features: The categories of its users and items; None for no columns of users and no categories of items.
        weights: How interactions of a history are weighted; its window is the longest history.
        positions: Int64 (n,), the interactions that are samples; None for all.
    """

    def __init__(
        self,
        data: Interactions,
        features: DataFeatures | None,
        weights: HistoryWeights,
        positions: Int64 | None = None,
    ) -> None:
        self.histories = RecentHistories(data, len(data) if weights.window is None else weights.window)
        self._data = data
        self._features = features
        self._how = weights
        self._positions = np.arange(len(data)) if positions is None else positions

    def __len__(self) -> int:
        return int(self._positions.size)

    def __getitem__(self, index: int) -> InteractionBatch:
        """Return a batch of one interaction."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> InteractionBatch:
        """Return a batch of interactions."""
        positions = self._positions[np.asarray(indices, dtype=np.int64)]
        user_rows = self._data.user_rows[positions].astype(np.int64)
        item_rows = self._data.item_rows[positions].astype(np.int64)
        windows = self.histories.before(positions)
        types, ratings = self.histories.types_of(positions), self._data.ratings[positions]
        if self._features is None:
            attributes = np.empty((positions.size, 0), dtype=np.int64)
            categories, offsets = np.empty(0, dtype=np.int64), np.zeros(positions.size, dtype=np.int64)
        else:
            attributes = self._features.users[user_rows].astype(np.int64)
            own = features_of_items(self._features.items, item_rows)
            categories, offsets = own.ids.astype(np.int64), own.indptr[:-1]
        arrays = (
            user_rows,
            item_rows,
            ratings,
            self._how.of_events(ratings, types).astype(np.float32),
            attributes,
            windows.items.astype(np.int64),
            windows.values,
            windows.weights(self._how).astype(np.float32),
            categories,
            offsets,
        )
        return InteractionBatch(*map(torch.from_numpy, arrays))
