"""Fold-in of non-negative factors: the epochs of the trainer for one user, with the item factors held fixed.

With item factors q, the ratings r of the user and their predictions s, an epoch multiplies each factor of the user:

    p_f <- p_f (sum of q_if r) / (sum of q_if s + n reg p_f)

(Luo, Zhou, Xia and Zhu, IEEE Transactions on Industrial Informatics 10(2), 2014). Sums over ratings are taken once, so
that an epoch costs k^2. With biases, b takes the n steps of an epoch at once, as if all ratings had the mean error.

Parameters: `reg`, `n_epochs`, `start`, the factors before the first epoch; `zero`, the rating that counts as 0;
`biased`, 1 or 0, with `reg_bias` and `lr_bias`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in import ridge
from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory

_TINY: Final = float(np.finfo(np.float64).tiny)


def non_negative(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Multiply the user's factors as the trainer does; without interactions they are 0."""
    n, k = recent.rows.size, model.item_factors.shape[1]
    if not n:
        return UserRepresentation(np.zeros(k, np.float32), model.global_mean, seen)
    parameters = how.parameters
    items = model.item_factors.take(recent.rows, axis=0).astype(np.float64)
    ratings = np.clip(recent.values, model.rating_min, model.rating_max).astype(np.float64) - parameters["zero"]
    baseline = model.item_bias[recent.rows] + (model.global_mean - parameters["zero"])
    wanted, of_baseline, item_sums = ratings @ items, baseline @ items, items.sum(axis=0)
    has_baseline = bool(baseline.any())
    system = ridge.gramian(items)
    ridge.add_to_diagonal(system, parameters["reg"] * n)
    mean_residual, bias = float((ratings - baseline).mean()), 0.0
    shrinkage = 1 + parameters["reg_bias"]
    # The share of its way to the optimum that the bias goes in n steps.
    share = parameters["biased"] * (1 - max(0.0, 1 - parameters["lr_bias"] * shrinkage) ** n)
    factors, divisors = np.full(k, parameters["start"]), np.empty(k)
    for _ in range(int(parameters["n_epochs"])):
        np.dot(system, factors, out=divisors)
        if has_baseline:
            divisors += of_baseline
        if share:
            divisors += bias * item_sums
            bias += share * ((mean_residual - float(item_sums @ factors) / n) / shrinkage - bias)
        # A factor that none of the user's items has becomes 0.
        np.maximum(divisors, _TINY, out=divisors)
        np.divide(wanted, divisors, out=divisors)
        factors *= divisors
    return UserRepresentation(factors.astype(np.float32), model.global_mean + bias, seen)
