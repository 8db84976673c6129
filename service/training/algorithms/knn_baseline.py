"""k nearest neighbours with the mean and the biases of users and items as the baseline.

Koren, "Factor in the neighbors: scalable and accurate collaborative filtering", ACM TKDD 4(1), 2010, section 2.2.
"""

from typing import Final

from service.training.algorithms import knn

NAME: Final = "knn_baseline"
ALGORITHM: Final = knn.algorithm(NAME, knn.estimated_baseline)
