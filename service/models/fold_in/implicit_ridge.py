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
from service.models.fold_in.neighbour_sum import not_negligible
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory


class HalfEpoch(NamedTuple):
    """The regression of a user's factors.

    Attributes:
        weights: Float64 (m,), signed, of the interactions.
        items: Float64 (m, k), the factors of their items.
        penalty: On the diagonal, besides the precision.
    """

    weights: NDArray[np.float64]
    items: NDArray[np.float64]
    penalty: float

    def system(self, precision: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the linear system, float64 (k, k), whose solution for `weights @ items` are the factors."""
        system = ridge.gramian(self.items, np.abs(self.weights))
        ridge.add_to_diagonal(system, self.penalty)
        if precision is not None and len(precision) == 1:
            ridge.add_to_diagonal(system, precision[0])
        elif precision is not None:
            system += precision
        return system

    def factors(self, precision: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the factors, float64 (k,), solved in the space of factors or of interactions, whichever is smaller.

        With a diagonal penalty D and rows X scaled by the square roots of |c|, the second way is D^-1 X' (X D^-1 X' +
        I)^-1 (Woodbury's identity).
        """
        n, k = self.items.shape
        if n >= k or (precision is not None and len(precision) > 1):
            return ridge.solve(self.system(precision), self.weights @ self.items)
        diagonal = np.full(k, self.penalty) if precision is None else self.penalty + precision[0]
        if diagonal.min() <= 0:
            return np.zeros(k)
        scales = np.sqrt(np.abs(self.weights))
        scaled = self.items * scales[:, np.newaxis]
        shrunk = scaled / diagonal
        system = shrunk @ scaled.T
        ridge.add_to_diagonal(system, 1.0)
        return np.asarray(ridge.solve(system, np.sign(self.weights) * scales) @ shrunk)


def implicit_ridge(model: ItemTables, how: FoldIn, recent: UserHistory, seen: NDArray[np.int32]) -> UserRepresentation:
    """Solve for the user's factors; they are 0 without an interaction of a weight other than 0."""
    half = half_epoch(model, how, recent, with_negligible=False)
    if half is None:
        return UserRepresentation(np.zeros(model.item_factors.shape[1], np.float32), model.global_mean, seen)
    factors = half.factors(model.fold_in_precision)
    return UserRepresentation(factors.astype(np.float32), model.global_mean, seen)


def half_epoch(
    model: ItemTables, how: FoldIn, recent: UserHistory, *, with_negligible: bool = True
) -> HalfEpoch | None:
    """Return the regression of a user; None without an interaction of a weight other than 0.

    Args:
        with_negligible: Whether interactions of a negligible weight are in it.
    """
    weights = how.weights.of(recent)
    total = float(np.abs(weights).sum())
    if not total:
        return None
    reg, reg_exp, reg_pairs, mean_rating = (
        how.parameters[name] for name in ("reg", "reg_exp", "reg_pairs", "mean_rating")
    )
    if mean_rating:
        weights = confidences(weights, recent.values, mean_rating)
    rows = recent.rows
    if not with_negligible:
        kept = not_negligible(weights)
        rows, weights = rows[kept], weights[kept]
    items = model.item_factors.take(rows, axis=0).astype(np.float64)
    return HalfEpoch(weights, items, reg * (total + reg_pairs) ** reg_exp)


def confidences(weights: NDArray[np.float64], ratings: NDArray[np.float32], mean_rating: float) -> NDArray[np.float64]:
    """Multiply weights above 0 by ratings of at least 0 over their mean: float64 (m,)."""
    relative = np.maximum(ratings, 0) / np.float32(mean_rating)
    return np.where(weights > 0, weights * relative, weights)
