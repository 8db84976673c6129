"""k nearest neighbours with the mean rating of each user, or of each item if items are neighbours, as the baseline."""

from typing import Final

import numpy as np
from scipy.sparse import csr_array

from service.training.algorithms import knn
from service.training.algorithms.baseline import Baseline
from service.training.algorithms.kernels.sparse_rows import row_means
from service.training.algorithms.knn import KnnConfig

NAME: Final = "knn_means"


def _baseline(ratings: csr_array, config: KnnConfig) -> Baseline:
    n_users, n_items = ratings.shape
    mean = ratings.data.mean(dtype=np.float64)
    if config.user_based:
        return Baseline(float(mean), row_means(ratings, ratings.data - mean), np.zeros(n_items))
    by_item = ratings.T.tocsr()
    return Baseline(float(mean), np.zeros(n_users), row_means(by_item, by_item.data - mean))


ALGORITHM: Final = knn.algorithm(NAME, _baseline)
