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

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in import ridge
from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory


class RatingSystem(NamedTuple):
    """The linear system of a user's factors, and of the bias if there is one, for the right side `ratings @ features`.

    Attributes:
        system: Float64 (k or k + 1, k or k + 1).
        features: Float64 (n, k or k + 1), of the rated items.
        ratings: Float64 (n,), less everything that is not to be found.
        implicit: Float64 (n, k), the part of each item in z; None if the model has no input factors.
    """

    system: NDArray[np.float64]
    features: NDArray[np.float64]
    ratings: NDArray[np.float64]
    implicit: NDArray[np.float64] | None


def rating_ridge(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Solve for the factors and the bias of the user; without interactions both are 0."""
    k = model.item_factors.shape[1]
    if not recent.rows.size:
        return UserRepresentation(np.zeros(k, np.float32), model.global_mean, seen)
    found = rating_system(model, how, recent)
    solution = ridge.solve(found.system, found.ratings @ found.features)
    bias = how.parameters["mean_bias"] + float(solution[k:].sum())
    factors = solution[:k]
    if found.implicit is not None:
        factors = factors + np.add.reduce(found.implicit, axis=0)
    return UserRepresentation(factors.astype(np.float32), model.global_mean + bias, seen)


def rating_system(model: ItemTables, how: FoldIn, recent: UserHistory) -> RatingSystem:
    """Return the system of a user with at least one interaction."""
    n, k = recent.rows.size, model.item_factors.shape[1]
    parameters = how.parameters
    features = np.ones((n, k + int(parameters["biased"])))
    features[:, :k] = model.item_factors.take(recent.rows, axis=0)
    ratings = np.clip(recent.values, model.rating_min, model.rating_max).astype(np.float64)
    ratings -= model.item_bias[recent.rows] + (model.global_mean + parameters["mean_bias"])
    implicit = None
    if model.input_factors is not None:
        implicit = model.input_factors.take(recent.rows, axis=0).astype(np.float64) * n**-0.5
        ratings -= features[:, :k] @ np.add.reduce(implicit, axis=0)
    system = ridge.gramian(features)
    penalties = np.full(len(system), parameters["reg_factors"] * n + parameters["reg_factors_fixed"])
    penalties[k:] = parameters["reg_bias"] * n + parameters["reg_bias_fixed"]
    ridge.add_to_diagonal(system, penalties)
    if model.fold_in_precision is not None:
        system += model.fold_in_precision
    return RatingSystem(system, features, ratings, implicit)
