"""k nearest neighbours above nothing but the mean of all ratings: the mean of what neighbours gave.

The mean cancels out wherever somebody speaks; it is what remains where nobody does.
"""

from typing import Final

import numpy as np
from scipy.sparse import csr_array

from service.training.algorithms import knn
from service.training.algorithms.baseline import Levels
from service.training.algorithms.knn import KnnConfig

NAME: Final = "knn_basic"


def _levels(ratings: csr_array, _config: KnnConfig) -> Levels:
    n_users, n_items = ratings.shape
    return Levels(float(ratings.data.mean(dtype=np.float64)), np.zeros(n_users), np.zeros(n_items))


ALGORITHM: Final = knn.algorithm(NAME, _levels)
