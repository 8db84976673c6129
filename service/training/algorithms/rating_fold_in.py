"""How models that predict ratings fold users in, with the regularisation of their trainers.

Ratings count as they are: a fold-in solves what the trainer solved for the user, and a dismissal is a low rating.
"""

from typing import Any, Final

from service.models.fold_in.settings import FoldIn
from service.models.history.weights import HistoryWeights
from service.training.algorithms.kernels.factors.rating_unit import Unit
from service.training.algorithms.kernels.factors.training import learning_rates

AS_RATED: Final = HistoryWeights(dislike_weight=1.0)
# Instead of an infinite penalty, where a learning rate of 0 learns nothing.
_MOST_PENALTY: Final = 1e30


def of_descent(config: Any, unit: Unit, *, biased: bool) -> FoldIn:
    """Return the fold-in of factors and biases learnt by gradient descent in a unit.

    Args:
        config: Hyperparameters with lr_pu, lr_bu, reg_pu and reg_bu, see `learning_rates`, and n_epochs.
    """
    rate_factors, rate_bias, reg_factors, reg_bias = learning_rates(config, ("pu", "bu")).tolist()
    return FoldIn(
        "rating_ridge",
        AS_RATED,
        {
            "reg_factors": reg_factors / unit.factor,
            "reg_factors_fixed": stopping_penalty(rate_factors, config.n_epochs) / unit.factor,
            "reg_bias": reg_bias,
            "reg_bias_fixed": stopping_penalty(rate_bias, config.n_epochs),
            "biased": float(biased),
            "mean_bias": 0.0,
        },
    )


def of_biases(reg_bias: float, reg_bias_fixed: float) -> FoldIn:
    """Return the fold-in of a user's bias alone, with a penalty of reg_bias for each rating and a fixed one."""
    parameters = {"reg_factors": 0.0, "reg_factors_fixed": 0.0, "biased": 1.0, "mean_bias": 0.0}
    return FoldIn(
        "rating_ridge", AS_RATED, parameters | {"reg_bias": float(reg_bias), "reg_bias_fixed": float(reg_bias_fixed)}
    )


def of_neighbours(*, biased: bool, residuals: bool, reg_bias: float = 0.0, reg_bias_fixed: float = 0.0) -> FoldIn:
    """Return the fold-in of a model with item neighbours, see `service.models.fold_in.residual_sum`."""
    parameters = {"biased": float(biased), "residuals": float(residuals)}
    return FoldIn(
        "residual_sum", AS_RATED, parameters | {"reg_bias": float(reg_bias), "reg_bias_fixed": float(reg_bias_fixed)}
    )


def stopping_penalty(learning_rate: float, n_epochs: int) -> float:
    """Return the ridge penalty to which the end of a descent after some epochs amounts; see `rating_ridge`."""
    return min(_MOST_PENALTY, 1 / (learning_rate * n_epochs)) if learning_rate else _MOST_PENALTY
