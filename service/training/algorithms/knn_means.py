"""k nearest neighbours above means: of each user's ratings, or where items have neighbours of each item's."""

from typing import Final

import numpy as np
from scipy.sparse import csr_array

from service.training.algorithms import knn
from service.training.algorithms.baseline import Levels
from service.training.algorithms.kernels.sparse_rows import row_means
from service.training.algorithms.knn import KnnConfig

NAME: Final = "knn_means"


def _levels(ratings: csr_array, config: KnnConfig) -> Levels:
    n_users, n_items = ratings.shape
    mean = ratings.data.mean(dtype=np.float64)
    if config.user_based:
        return Levels(float(mean), row_means(ratings, ratings.data - mean), np.zeros(n_items))
    by_item = ratings.T.tocsr()
    return Levels(float(mean), np.zeros(n_users), row_means(by_item, by_item.data - mean))


ALGORITHM: Final = knn.algorithm(NAME, _levels)
