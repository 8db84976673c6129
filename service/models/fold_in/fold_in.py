"""Fold-in: the representation of a user, computed from their interactions and the fitted item tables.

Source: Berry, Dumais and O'Brien, "Using linear algebra for intelligent information retrieval", SIAM Review 37(4),
1995. Invariant: a representation depends on the model and the history alone, so that every replica computes the same
one, to the last bit.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.decayed_sum import decayed_sum
from service.models.fold_in.implicit_ridge import implicit_ridge
from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.neighbour_sum import neighbour_sum
from service.models.fold_in.network_user import network_user
from service.models.fold_in.non_negative import non_negative
from service.models.fold_in.rating_ridge import rating_ridge
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.residual_sum import residual_sum
from service.models.fold_in.settings import NETWORK, FoldIn
from service.models.history.user_history import UserHistory

Method = Callable[[ItemTables, FoldIn, UserHistory, NDArray[np.int32]], UserRepresentation]
_METHODS: Final[dict[str, Method]] = {
    "decayed_sum": decayed_sum,
    "neighbour_sum": neighbour_sum,
    "implicit_ridge": implicit_ridge,
    "rating_ridge": rating_ridge,
    "non_negative": non_negative,
    "residual_sum": residual_sum,
}


def fold_in(
    model: ItemTables,
    history: UserHistory,
    user_row: int | None = None,
    attributes: NDArray[np.int32] | None = None,
) -> UserRepresentation | None:
    """Compute the representation of a user; None if the model cannot fold in.

    Every item of the history counts as seen; `FoldIn.weights` decides about its weight.

    Args:
        model: The model.
        history: All interactions of the user.
        user_row: The user as trained, whose attributes and own input a network reads; None if unknown.
        attributes: Int32 (c,), the user's categories for a network; None for those published with the model.
    """
    how = model.fold_in
    if how is None:
        return None
    recent, seen = how.weights.recent(history), np.sort(history.rows)
    if how.method == NETWORK:
        return network_user(model, how, recent, seen, user_row, attributes)
    return _METHODS[how.method](model, how, recent, seen)
