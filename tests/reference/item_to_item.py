"""Reference of `ease` and `item_knn`: dense, one step at a time."""

import numpy as np
from numpy.typing import NDArray

from service.training.algorithms.ease.ease import EaseConfig
from service.training.algorithms.item_knn import ItemKnnConfig, weights_and_norms
from service.training.assembly import assemble, history
from service.training.entry_weights import positives
from service.training.interactions import Interactions

Weights = NDArray[np.float64]


def seen(data: Interactions) -> Weights:
    """Return X: 1 where a user has seen an item, float64 (n_users, n_items)."""
    matrix = np.zeros((len(data.users), len(data.items)))
    matrix[data.user_rows, data.item_rows] = 1
    return matrix


def ease_weights(data: Interactions, config: EaseConfig) -> Weights:
    """Return B, float64 (n_items, n_items), with the weights of neighbour j in row j."""
    x = seen(positives(data, config.history_weights(data)))
    p = np.linalg.inv(x.T @ x + config.reg * np.eye(x.shape[1]))
    b: Weights = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    return b


def scores_of(data: Interactions, config: EaseConfig, weights: Weights, user_row: int) -> Weights:
    """Return the sum of the weights of neighbours j, in row j, over the weighted history of a user."""
    how, own = config.history_weights(data), assemble(data, "ease", config).user_history(user_row)
    scores: Weights = sum((w * weights[j] for j, w in zip(own.rows, how.of(own), strict=True)), np.zeros(len(weights)))
    return scores


def item_knn_weights(data: Interactions, config: ItemKnnConfig) -> Weights:
    """Return the kept weights of `item_knn`, float64 (n_items, n_items), with those of neighbour j in row j."""
    liked = positives(data, config.history_weights(data))
    user_weights, item_scales, norms = weights_and_norms(history(liked), config.weighting)
    x = seen(liked) * user_weights[:, np.newaxis] * item_scales
    n_items = x.shape[1]
    kept = np.zeros((n_items, n_items))
    for i in range(n_items):
        dots = x[:, i] @ x
        similarities = np.array(
            [0 if j == i else _similarity(dots[j], norms[i], norms[j], config) for j in range(n_items)]
        )
        strongest = sorted(range(n_items), key=lambda j: (-np.float32(similarities[j]), j))[: config.n_neighbours]
        kept[strongest, i] = similarities[strongest]
    return kept


def _similarity(dot: float, own: float, other: float, config: ItemKnnConfig) -> float:
    if dot == 0 or config.similarity == "product":
        return dot
    norms = own + other - dot
    if config.similarity == "cosine":
        norms = own**config.asymmetry * other ** (1 - config.asymmetry)
    return dot / (norms + config.shrink)
