"""Items as the input of an item tower: their rows and their categories."""

from typing import NamedTuple

import numpy as np
import torch

from service.models.features.item_features import ItemFeatures
from service.training.data.features import features_of_items
from service.training.deep.group.share import Rows
from service.training.interactions import Int64


class ItemBatch(NamedTuple):
    """q items.

    Attributes:
        rows: Int64 (q,), item rows.
        categories: Int64 (m,), the categories of the items, one item after the other.
        offsets: Int64 (q,), where each item begins in `categories`.
        part: Which items of a batch that processes share these are; None for all.
    """

    rows: torch.Tensor
    categories: torch.Tensor
    offsets: torch.Tensor
    part: Rows | None = None


def item_batch(features: ItemFeatures, rows: Int64, part: Rows | None = None) -> ItemBatch:
    """Return the items with these rows, int64 (q,), or a part of them, with their categories."""
    rows = rows if part is None else rows[part.places]
    own = features_of_items(features, rows)
    numbers, categories, offsets = map(torch.from_numpy, (rows, own.ids.astype(np.int64), own.indptr[:-1]))
    return ItemBatch(numbers, categories, offsets, part)
