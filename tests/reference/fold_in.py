"""References of the methods of `service.models.fold_in`: the losses that they minimise, and epochs rating by rating."""

import numpy as np

from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory
from service.models.snapshot import ModelSnapshot
from service.training.interactions import Float64


def implicit_loss(snapshot: ModelSnapshot, how: FoldIn, history: UserHistory, factors: Float64) -> float:
    """Return the loss of `implicit_ridge` for a user's factors, float64 (k,)."""
    items, precision = snapshot.item_factors.astype(np.float64), snapshot.fold_in_precision
    parameters, weights = how.parameters, how.weights.of(history)
    loss, total = 0.0, 0.0
    for row, weight, value in zip(history.rows, weights, history.values, strict=True):
        relative = float(value) / parameters["mean_rating"] if parameters["mean_rating"] and weight > 0 else 1.0
        loss += abs(float(weight)) * relative * (float(factors @ items[row]) - float(np.sign(weight))) ** 2
        total += abs(float(weight))
    if precision is not None:
        full = np.diag(precision[0]) if len(precision) == 1 else precision
        loss += float(factors @ full @ factors)
    penalty = parameters["reg"] * (total + parameters["reg_pairs"]) ** parameters["reg_exp"]
    return float(loss + penalty * factors @ factors)


def rating_loss(snapshot: ModelSnapshot, how: FoldIn, history: UserHistory, factors: Float64, bias: float) -> float:
    """Return the loss of `rating_ridge` for a user's own factors, without implicit ones, and bias."""
    parameters, n = how.parameters, history.rows.size
    implicit = np.zeros(snapshot.n_factors)
    if snapshot.input_factors is not None:
        for row in history.rows:
            implicit += snapshot.input_factors[row] / np.sqrt(n)
    loss = 0.0
    for row, value in zip(history.rows, history.values, strict=True):
        rating = min(max(float(value), snapshot.rating_min), snapshot.rating_max)
        predicted = snapshot.global_mean + snapshot.item_bias[row] + bias
        loss += (rating - predicted - snapshot.item_factors[row] @ (factors + implicit)) ** 2
    loss += (parameters["reg_factors"] * n + parameters["reg_factors_fixed"]) * float(factors @ factors)
    loss += (parameters["reg_bias"] * n + parameters["reg_bias_fixed"]) * (bias - parameters["mean_bias"]) ** 2
    if snapshot.fold_in_precision is not None:
        own = np.append(factors, bias - parameters["mean_bias"])[: len(snapshot.fold_in_precision)]
        loss += float(own @ snapshot.fold_in_precision @ own)
    return float(loss)


def non_negative_epochs(snapshot: ModelSnapshot, how: FoldIn, history: UserHistory) -> tuple[Float64, float]:
    """Return a user's factors and bias after the epochs of `non_negative`, rating by rating."""
    parameters, n, k = how.parameters, history.rows.size, snapshot.n_factors
    factors, bias = np.full(k, parameters["start"]), 0.0
    for _ in range(int(parameters["n_epochs"])):
        wanted, got, errors = np.zeros(k), np.zeros(k), []
        for row, value in zip(history.rows, history.values, strict=True):
            item = snapshot.item_factors[row].astype(np.float64)
            base = snapshot.global_mean + float(snapshot.item_bias[row]) - parameters["zero"]
            rating = float(value) - parameters["zero"]
            wanted += item * rating
            got += item * (item @ factors + base + bias)
            errors.append(rating - base - item @ factors)
        if parameters["biased"]:
            # Each of n steps moves the bias towards the mean error.
            for _step in range(n):
                bias += parameters["lr_bias"] * (np.mean(errors) - bias - parameters["reg_bias"] * bias)
        factors = factors * wanted / (got + n * parameters["reg"] * factors)
    return factors, bias
