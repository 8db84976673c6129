"""k nearest neighbours with the mean of all ratings as the baseline: the weighted mean of the neighbours' ratings.

The baseline cancels out with neighbours, and is the prediction without.
"""

from typing import Final

import numpy as np
from scipy.sparse import csr_array

from service.training.algorithms import knn
from service.training.algorithms.baseline import Baseline
from service.training.algorithms.knn import KnnConfig

NAME: Final = "knn_basic"


def _baseline(ratings: csr_array, _config: KnnConfig) -> Baseline:
    n_users, n_items = ratings.shape
    return Baseline(float(ratings.data.mean(dtype=np.float64)), np.zeros(n_users), np.zeros(n_items))


ALGORITHM: Final = knn.algorithm(NAME, _baseline)
