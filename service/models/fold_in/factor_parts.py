"""The part of each interaction in a user's factors, so that a score can be told from the items that it comes from.

The parts of a fold-in that is a sum or a linear system add up to its factors (Hu, Koren and Volinsky, "Collaborative
filtering for implicit feedback datasets", ICDM 2008, section 5). Of non-negative factors each is divided among the
interactions as the numerator of its last update is. Of a network that reads interactions in their order, a part is what
an interaction changed when it came; of another network, what changes without it (`network_parts.py`).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.decayed_sum import scale_of_sum
from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.implicit_ridge import half_epoch
from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.network_parts import network_parts
from service.models.fold_in.rating_ridge import rating_system
from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.history.user_history import UserHistory
from service.models.networks.inputs import InputTables, UserInput
from service.models.networks.network import OrderedTower

Float64 = NDArray[np.float64]


class FactorParts(NamedTuple):
    """The parts of the interactions of a user.

    Attributes:
        rows: Int32 (m,), the items of the interactions.
        factors: Float64 (m, k), their parts in the user's factors.
        constants: Float64 (m,), their parts in the user's bias.
    """

    rows: NDArray[np.int32]
    factors: Float64
    constants: Float64


def factor_parts(model: ItemTables, history: UserHistory) -> FactorParts | None:
    """Return the parts of a user's interactions; None if the model has no factors or does not fold in."""
    how = model.fold_in
    if how is None or how.method not in _METHODS:
        return None
    recent = how.weights.recent(history)
    k = model.item_factors.shape[1]
    parts = np.zeros((recent.rows.size, k + 1))
    if recent.rows.size:
        found = _METHODS[how.method](model, how, recent)
        parts[:, : found.shape[1]] = found
    return FactorParts(recent.rows, parts[:, :k], parts[:, k])


def _decayed_sum(model: ItemTables, how: FoldIn, recent: UserHistory) -> Float64:
    weights = how.weights.of(recent)
    weights = weights * scale_of_sum(weights, how)
    inputs = model.item_factors if model.input_factors is None else model.input_factors
    parts: Float64 = inputs.take(recent.rows, axis=0) * weights[:, np.newaxis]
    return parts


def _implicit_ridge(model: ItemTables, how: FoldIn, recent: UserHistory) -> Float64:
    half = half_epoch(model, how, recent)
    if half is None:
        return np.zeros((recent.rows.size, model.item_factors.shape[1]))
    return _solved(half.system(model.fold_in_precision), half.items * half.weights[:, np.newaxis])


def _rating_ridge(model: ItemTables, how: FoldIn, recent: UserHistory) -> Float64:
    found = rating_system(model, how, recent)
    parts = _solved(found.system, found.features * found.ratings[:, np.newaxis])
    if found.implicit is not None:
        parts[:, : found.implicit.shape[1]] += found.implicit
    return parts


def _non_negative(model: ItemTables, how: FoldIn, recent: UserHistory) -> Float64:
    folded = fold_in(model, recent)
    ratings = np.clip(recent.values, model.rating_min, model.rating_max).astype(np.float64) - how.parameters["zero"]
    numerators = model.item_factors.take(recent.rows, axis=0) * ratings[:, np.newaxis]
    sums = numerators.sum(axis=0)
    factors = np.zeros(sums.size) if folded is None else folded.factors.astype(np.float64)
    parts: Float64 = numerators * np.divide(factors, sums, out=np.zeros(sums.size), where=sums != 0)
    return parts


def _network(model: ItemTables, how: FoldIn, recent: UserHistory) -> Float64:
    tower = _ordered_tower(model)
    if tower is None:
        return network_parts(model, how, recent)
    inputs = model.item_factors if model.input_factors is None else model.input_factors
    given = UserInput(recent, np.zeros(0, dtype=np.int32))
    after = tower.after_each(given, InputTables(inputs, model.item_bias, model.global_mean)).astype(np.float64)
    return np.diff(after, axis=0, prepend=np.zeros((1, after.shape[1])))


def _ordered_tower(model: ItemTables) -> OrderedTower | None:
    tower: object = None if model.networks is None else model.networks.user_tower
    return tower if isinstance(tower, OrderedTower) else None


def _solved(system: Float64, right: Float64) -> Float64:
    """Return the solutions of a symmetric system, float64 (k, k), for right sides (m, k): float64 (m, k)."""
    return np.asarray(np.linalg.solve(system, right.T).T, dtype=np.float64)


_METHODS: Final[dict[str, Callable[[ItemTables, FoldIn, UserHistory], Float64]]] = {
    "decayed_sum": _decayed_sum,
    "implicit_ridge": _implicit_ridge,
    "rating_ridge": _rating_ridge,
    "non_negative": _non_negative,
    NETWORK: _network,
}
