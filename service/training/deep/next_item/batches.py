"""Interactions as batches for a softmax: each user's history before an interaction, and its item among the others'."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import torch

from service.models.networks.history_inputs import HistoryInputs
from service.training.data.features import DataFeatures
from service.training.deep.batches.histories import HistoryBatch, history_batch
from service.training.deep.batches.interaction_dataset import InteractionBatch, InteractionDataset
from service.training.deep.batches.items import ItemBatch, item_batch
from service.training.deep.batches.loaders import ShuffledBatches, in_order
from service.training.deep.group.share import Rows, Share
from service.training.interactions import Float64, Int64, Interactions

# A logit so low adds nothing to a softmax.
EXCLUDED: Final = -1e4


class NextBatch(NamedTuple):
    """The next interactions of b users, among q items.

    Attributes:
        histories: The users before the interactions.
        items: The items of the batch, each once.
        places: Int64 (b,), the place of each interaction's item in `items`.
        corrections: Float32 (q,), the logarithm of the probability that an item is in a batch.
        excluded_users: Int64 (m,), with `excluded_places`: the pairs that do not compete.
        excluded_places: Int64 (m,), the places of items that the user already has.
        n_terms: The users of all parts of the batch.
    """

    histories: HistoryBatch
    items: ItemBatch
    places: torch.Tensor
    corrections: torch.Tensor
    excluded_users: torch.Tensor
    excluded_places: torch.Tensor
    n_terms: int


class NextDraft(NamedTuple):
    """What is drawn for a batch.

    Attributes:
        indices: The b interactions, of those that are learnt.
        drawn: Int64 (m,), the rows of items drawn evenly.
    """

    indices: list[int]
    drawn: Int64


class NextBatches:
    """The interactions of a data set, each after the history before it.

    An item is in a batch of b interactions with the probability 1 - (1 - p)^b, where p is its share of interactions.
    The softmax over the items of the batch is corrected by its logarithm, as Yi et al. (RecSys 2019) correct that over
    interactions by log p; each item competes once, however often it is in the batch. Items drawn evenly from all
    besides let those compete, too, that are hardly in any batch (Yang et al., "Mixed negative sampling for learning
    two-tower neural networks in recommendations", WWW 2020).

    Args:
        data: The interactions in order of time.
        features: Of its users and items.
        inputs: How histories become numbers.
        positions: Int64 (n,), the interactions that are learnt.
        batch_size: Interactions a batch.
        n_drawn: Items drawn evenly for each batch.
    """

    def __init__(
        self,
        data: Interactions,
        features: DataFeatures,
        inputs: HistoryInputs,
        positions: Int64,
        batch_size: int,
        n_drawn: int,
    ) -> None:
        self._data: Final = data
        self._features: Final = features
        self._inputs: Final = inputs
        self._n_items: Final = len(data.items)
        self._n_drawn: Final = n_drawn
        self._item_rows: Final = data.item_rows[positions]
        self._batch_size: Final = batch_size
        self._dataset: Final = InteractionDataset(data, features, inputs.weights, positions)
        self.n_batches: Final = max(1, positions.size // batch_size)
        counts = np.bincount(data.item_rows[positions], minlength=self._n_items)
        self._known: Final = np.flatnonzero(counts)
        missed = np.log1p(-np.minimum(counts / max(1, positions.size), 1 - 1e-9)) * min(batch_size, positions.size)
        if n_drawn:
            missed += n_drawn * np.log1p(-1 / (self._known.size + 1))
        self._corrections: Final = np.log(np.maximum(-np.expm1(missed), 1e-12)).astype(np.float32)

    def drafts(self, generator: np.random.Generator) -> Iterator[NextDraft]:
        """Yield all learnt interactions in random order, by batches."""
        for indices in ShuffledBatches(len(self._dataset), self._batch_size, generator, drop_last=True):
            drawn = self._known[generator.integers(0, self._known.size, self._n_drawn)]
            yield NextDraft(indices, drawn)

    def batch(self, draft: NextDraft, share: Share) -> NextBatch:
        """Return a batch with a share of its users, and of the inputs of its items, which all are among the logits."""
        users = share.rows(len(draft.indices))
        own = self._dataset.__getitems__(draft.indices[users.places])
        items = self._item_rows[draft.indices].astype(np.int64)
        rows, places = np.unique(np.concatenate([items, draft.drawn]), return_inverse=True)
        column = np.full(self._n_items + 1, -1, dtype=np.int64)
        column[rows] = np.arange(rows.size)
        found = column[own.history.numpy()]
        of_users, window_places = np.nonzero(found >= 0)
        return NextBatch(
            self.histories_of(own, users),
            item_batch(self._features.items, rows, share.rows(rows.size)),
            torch.from_numpy(places[: items.size][users.places].astype(np.int64)),
            torch.from_numpy(self._corrections[rows]),
            torch.from_numpy(of_users),
            torch.from_numpy(found[of_users, window_places]),
            users.n_terms,
        )

    def histories_of(self, batch: InteractionBatch, rows: Rows | None = None) -> HistoryBatch:
        """Return the histories of a batch of interactions, of which they may be some rows."""
        history = batch.history.numpy()
        is_known = history != self._n_items
        weights: Float64 = batch.history_weights.numpy()[is_known].astype(np.float64)
        sizes = is_known.sum(axis=1)
        return history_batch(self._inputs, history[is_known], sizes, weights, None, batch.attributes.numpy(), rows)

    def in_order(self, positions: Int64, batch_size: int = 512) -> Iterable[HistoryBatch]:
        """Return the histories before some interactions, by batches."""
        dataset = InteractionDataset(self._data, self._features, self._inputs.weights, positions)
        return map(self.histories_of, in_order(dataset, batch_size))
