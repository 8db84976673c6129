"""The features of a data set: a fitted encoder, and the categories of all its users and items."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.models.features.feature_encoder import FeatureEncoder
from service.models.features.item_features import ItemFeatures
from service.training.interactions import Int64, Interactions


@dataclass(frozen=True, eq=False)
class DataFeatures:
    """The categories of the users and items of a data set.

    Attributes:
        encoder: What computed them, and is published with the model.
        users: Int32 (n_users, c), a category for each column of users.
        items: The categories of the n_items items.
    """

    encoder: FeatureEncoder
    users: NDArray[np.int32]
    items: ItemFeatures

    @classmethod
    def of(cls, data: Interactions, encoder: FeatureEncoder | None = None) -> "DataFeatures":
        """Compute the features of a data set.

        Args:
            encoder: How; None to fit one on the attributes of the data's users and items.
        """
        users, items = data.user_catalogue.of(data.users.id_of), data.catalogue.of(data.items.id_of)
        encoder = FeatureEncoder.fit(users, items) if encoder is None else encoder
        return cls(encoder, encoder.user_table(users), encoder.item_features(items))


def features_of_items(features: ItemFeatures, rows: Int64) -> ItemFeatures:
    """Return the categories of some items, in the order of their rows: int64 (m,)."""
    starts, sizes = features.indptr[rows], np.diff(features.indptr)[rows]
    indptr = np.zeros(rows.size + 1, dtype=np.int64)
    np.cumsum(sizes, out=indptr[1:])
    places = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], sizes)
    return ItemFeatures(indptr, features.ids[places])
