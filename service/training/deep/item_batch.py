"""Items as the input of an item tower: their rows and their categories."""

from typing import NamedTuple

import numpy as np
import torch

from service.models.networks.inputs import ItemFeatures
from service.training.data_features import features_of_items
from service.training.interactions import Int64


class ItemBatch(NamedTuple):
    """q items.

    Attributes:
        rows: Int64 (q,), item rows.
        categories: Int64 (m,), the categories of the items, one item after the other.
        offsets: Int64 (q,), where each item begins in `categories`.
    """

    rows: torch.Tensor
    categories: torch.Tensor
    offsets: torch.Tensor


def item_batch(features: ItemFeatures, rows: Int64) -> ItemBatch:
    """Return some items, int64 (q,), of those whose categories are given."""
    own = features_of_items(features, rows)
    arrays = (rows, own.ids.astype(np.int64), own.indptr[:-1])
    return ItemBatch(*map(torch.from_numpy, arrays))
