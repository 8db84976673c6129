"""Fold-in of factors that were learnt from interactions against all pairs: a half epoch of implicit ALS for one user.

With item factors h, the weights c of the user's interactions S, and the precision Q, the Gramian of all item factors
times the weight of every pair, the user's factors w are the

    argmin  sum over j in S of |c_j| (w . h_j - sign c_j)^2 + w' Q w
            + reg (sum over S of |c_j| + reg_pairs)^reg_exp |w|^2

(Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008, with the regularisation of
Rendle, Krichene, Zhang and Koren, RecSys 2022). A dislike has a negative weight and pulls scores down.

Parameters: `reg`, `reg_exp` and `reg_pairs`; `mean_rating` if ratings are confidences in units of it, else 0.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in import ridge
from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.settings import FoldIn
from service.models.representation import UserRepresentation
from service.models.user_history import UserHistory


class HalfEpoch(NamedTuple):
    """The linear system of a user's factors: its solution for the right side `weights @ items`.

    Attributes:
        system: Float64 (k, k).
        weights: Float64 (m,), signed, of the interactions.
        items: Float64 (m, k), the factors of their items.
    """

    system: NDArray[np.float64]
    weights: NDArray[np.float64]
    items: NDArray[np.float64]


def implicit_ridge(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Solve for the user's factors; they are 0 without an interaction of a weight other than 0."""
    half = half_epoch(model, how, recent)
    if half is None:
        return UserRepresentation(np.zeros(model.item_factors.shape[1], np.float32), model.global_mean, seen)
    factors = ridge.solve(half.system, half.weights @ half.items)
    return UserRepresentation(factors.astype(np.float32), model.global_mean, seen)


def half_epoch(model: ItemTables, how: FoldIn, recent: UserHistory) -> HalfEpoch | None:
    """Return the system of a user; None without an interaction of a weight other than 0."""
    weights = how.weights.of(recent)
    total = float(np.abs(weights).sum())
    if not total:
        return None
    reg, reg_exp, reg_pairs, mean_rating = (
        how.parameters[name] for name in ("reg", "reg_exp", "reg_pairs", "mean_rating")
    )
    if mean_rating:
        weights = confidences(weights, recent.values, mean_rating)
    items = model.item_factors.take(recent.rows, axis=0).astype(np.float64)
    system = ridge.gramian(items, np.abs(weights))
    if model.fold_in_precision is not None:
        system += model.fold_in_precision
    ridge.add_to_diagonal(system, reg * (total + reg_pairs) ** reg_exp)
    return HalfEpoch(system, weights, items)


def confidences(weights: NDArray[np.float64], ratings: NDArray[np.float32], mean_rating: float) -> NDArray[np.float64]:
    """Multiply weights above 0 by ratings of at least 0 over their mean: float64 (m,)."""
    relative = np.maximum(ratings, 0) / np.float32(mean_rating)
    return np.where(weights > 0, weights * relative, weights)
