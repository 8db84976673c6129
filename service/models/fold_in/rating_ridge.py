"""Fold-in of factors and biases that predict ratings: the best ones of a user, given the tables of the items.

With item factors q, item biases b_i, the mean mu and the n ratings r of the user, the factors p and the bias b are the

    argmin  sum over the ratings of (r - mu - b_i - b - q_i . (p + z))^2
            + (reg_factors n + reg_factors_fixed) |p|^2 + (reg_bias n + reg_bias_fixed) b^2 + (p, b)' Q (p, b)

where z is n^-1/2 times the sum of the input factors of the rated items, if the model has such factors (SVD++), and Q
the published precision, if there is one. A trainer by gradient descent penalises each of n ratings, and stops early,
which is a penalty of about 1 / (learning rate * epochs) (Ali, Kolter and Tibshirani, "A continuous-time view of early
stopping for least squares regression", AISTATS 2019).

Parameters: the four penalties; `biased`, 1 if users have a bias and else 0; `mean_bias`, towards which b is pulled.
"""

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in import ridge
from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.settings import FoldIn
from service.models.representation import UserRepresentation
from service.models.user_history import UserHistory


def rating_ridge(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Solve for the factors and the bias of the user; without interactions both are 0."""
    n, k = recent.rows.size, model.item_factors.shape[1]
    if not n:
        return UserRepresentation(np.zeros(k, np.float32), model.global_mean, seen)
    parameters = how.parameters
    mean_bias = parameters["mean_bias"]
    features = np.ones((n, k + int(parameters["biased"])))
    features[:, :k] = model.item_factors.take(recent.rows, axis=0)
    ratings = np.clip(recent.values, model.rating_min, model.rating_max).astype(np.float64)
    ratings -= model.item_bias[recent.rows] + (model.global_mean + mean_bias)
    implicit = np.zeros(k)
    if model.input_factors is not None:
        implicit = np.add.reduce(model.input_factors.take(recent.rows, axis=0), axis=0, dtype=np.float64) * n**-0.5
        ratings -= features[:, :k] @ implicit
    system = ridge.gramian(features)
    penalties = np.full(len(system), parameters["reg_factors"] * n + parameters["reg_factors_fixed"])
    penalties[k:] = parameters["reg_bias"] * n + parameters["reg_bias_fixed"]
    ridge.add_to_diagonal(system, penalties)
    if model.fold_in_precision is not None:
        system += model.fold_in_precision
    solution = ridge.solve(system, ratings @ features)
    bias = mean_bias + float(solution[k:].sum())
    return UserRepresentation((solution[:k] + implicit).astype(np.float32), model.global_mean + bias, seen)
