"""Clusters of users with similar tastes, and the popular items of each: a list that costs a look-up.

Users are clustered by k-means over the directions of their factors; in a model without factors, over a random
projection of their histories (Johnson and Lindenstrauss 1984), which keeps angles approximately. An item's popularity
in a cluster is its number of interactions there, times its share of recent ones in the whole data.
"""

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq
from scipy.sparse import csr_array

from service.models.snapshot import ModelSnapshot
from service.models.user_clusters import UserClusters
from service.training.interactions import Float32, Int32

_MOST_CLUSTERS: Final = 16
_USERS_PER_CLUSTER: Final = 50
_SAMPLED_USERS: Final = 20_000
_ITERATIONS: Final = 10
_PROJECTED: Final = 32
_BLOCK_USERS: Final = 65_536
_LISTED_ITEMS: Final = 1_000


def user_clusters(snapshot: ModelSnapshot, rng: np.random.Generator) -> UserClusters | None:
    """Cluster the users of a model; None if they are too few for two clusters."""
    n_users, n_items = len(snapshot.users), len(snapshot.items)
    count = min(_MOST_CLUSTERS, n_users // _USERS_PER_CLUSTER)
    if count < 2:
        return None
    sketch = None if snapshot.n_factors else rng.standard_normal((n_items, _PROJECTED), dtype=np.float32)
    sample = np.sort(rng.permutation(n_users)[:_SAMPLED_USERS])
    with warnings.catch_warnings():
        # A cluster without users, as of users that are all alike, does no harm.
        warnings.simplefilter("ignore")
        centres, _ = kmeans2(_directions(snapshot, sketch, sample), count, iter=_ITERATIONS, minit="++", rng=rng)
    of_users = np.empty(n_users, dtype=np.uint8)
    for start in range(0, n_users, _BLOCK_USERS):
        rows = np.arange(start, min(start + _BLOCK_USERS, n_users))
        of_users[rows] = vq(_directions(snapshot, sketch, rows), centres, check_finite=False)[0]
    return UserClusters(of_users, _popular_items(snapshot, of_users, count))


def _directions(snapshot: ModelSnapshot, sketch: Float32 | None, rows: NDArray[np.int64]) -> Float32:
    """Return the vectors of users at length 1, float32 (m, k); zeros for a user without interactions."""
    if sketch is None:
        vectors = snapshot.user_factors[rows]
    else:
        history = snapshot.history[rows]
        vectors = csr_array((np.ones_like(history.data), history.indices, history.indptr), shape=history.shape) @ sketch
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    directions: Float32 = vectors / lengths
    return directions


def _popular_items(snapshot: ModelSnapshot, of_users: NDArray[np.uint8], count: int) -> Int32:
    history = snapshot.history
    n_items = len(snapshot.items)
    cluster_of_entry = np.repeat(of_users.astype(np.int64), np.diff(history.indptr))
    counts = np.bincount(cluster_of_entry * n_items + history.indices, minlength=count * n_items)
    counts = counts.reshape(count, n_items).astype(np.float64)
    counts *= snapshot.popularity / np.maximum(counts.sum(axis=0), 1)
    m = min(_LISTED_ITEMS, n_items)
    # A stable order after that of overall popularity, which ranks the items without interactions in a cluster.
    order = np.argsort(-counts[:, snapshot.popular_rows], axis=1, kind="stable")[:, :m]
    return snapshot.popular_rows[order].astype(np.int32)
