"""Clusters of users, and lists of what is popular in a user's cluster: they cost a look-up instead of a product."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelRefused


class UserClusters(NamedTuple):
    """Clusters of users with similar tastes.

    Attributes:
        of_users: Uint8 (n_users,), the cluster of each user.
        items: Int32 (n_clusters, m), the popular items of each cluster, most popular first.
    """

    of_users: NDArray[np.uint8]
    items: NDArray[np.int32]

    def check(self, n_users: int, n_items: int) -> None:
        """Check shapes and rows.

        Raises:
            ModelRefused: A shape does not fit the ids, or a cluster or an item does not exist.
        """
        n_clusters = self.items.shape[0]
        if self.of_users.shape != (n_users,) or (n_users and int(self.of_users.max()) >= n_clusters):
            raise ModelRefused("The clusters of users do not fit the users.")
        if self.items.size and not (self.items.min() >= 0 and self.items.max() < n_items):
            raise ModelRefused("The clusters name items that do not exist.")

    def of_kept(self, keep: NDArray[np.bool_]) -> "UserClusters":
        """Return the clusters of the users of a mask, bool (n_users,)."""
        return UserClusters(self.of_users[keep], self.items)
