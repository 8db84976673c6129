"""The user of a list, computed from an up-to-date history and, where the model knows the user, from the trained one.

Invariant: a user without an interaction since the training is the trained one, to the last bit.

A model that was learnt by descent or sampling does not end at the solution of a fold-in for each of its users. A known
user of such a model moves from the trained factors by what the new interactions change in the fold-in, so that a list
answers to them alone.
"""

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.fold_in import fold_in
from service.models.fold_in.representation import UserRepresentation
from service.models.history.user_history import UserHistory
from service.models.snapshot import ModelSnapshot


def folded_user(
    snapshot: ModelSnapshot,
    user_row: int | None,
    history: UserHistory,
    attributes: NDArray[np.int32] | None = None,
) -> UserRepresentation | None:
    """Compute a user from all interactions; None if the model cannot fold in.

    Args:
        snapshot: The model.
        user_row: The user in the model; None if it does not know the user.
        history: The interactions of training and since.
        attributes: Int32 (c,), the user's categories for a network; None for those published with the model.
    """
    folded = fold_in(snapshot, history, user_row, attributes)
    if folded is None or user_row is None or snapshot.fold_in is None or not snapshot.fold_in.is_approximate:
        return folded
    at_training = fold_in(snapshot, snapshot.user_history(user_row))
    if at_training is None:
        return folded
    trained = snapshot.trained_user(user_row)
    moved = trained.factors.astype(np.float64) + (folded.factors.astype(np.float64) - at_training.factors)
    constant = trained.constant + (folded.constant - at_training.constant)
    return folded._replace(factors=moved.astype(np.float32), constant=constant)
