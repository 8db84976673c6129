"""Fold-in by the user tower of a model with networks."""

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.item_tables import ItemTables
from service.models.fold_in.representation import UserRepresentation
from service.models.fold_in.settings import FoldIn
from service.models.history.user_history import UserHistory
from service.models.networks.inputs import InputTables, UserInput


def network_user(
    model: ItemTables,
    how: FoldIn,
    recent: UserHistory,
    seen: NDArray[np.int32],
    user_row: int | None,
    attributes: NDArray[np.int32] | None,
) -> UserRepresentation:
    """Return the user that the tower computes from the recent interactions and what is known of the user.

    Args:
        model: The model, which has networks.
        how: Its fold-in; the tower applies recency itself, or takes the weights as its kind says.
        recent: The interactions within the window.
        seen: Int32, ascending.
        user_row: The user as trained; None if unknown.
        attributes: The user's categories; None for those published with the model.
    """
    networks = model.networks
    if networks is None:
        raise AssertionError("A model that folds in by a network has networks: ModelSnapshot checks it.")
    own = None
    if user_row is not None:
        own = None if model.user_inputs is None else model.user_inputs[user_row]
        if attributes is None and model.user_attributes is not None:
            attributes = model.user_attributes[user_row]
    if attributes is None:
        attributes = np.zeros(_n_columns(model), dtype=np.int32)
    inputs = model.item_factors if model.input_factors is None else model.input_factors
    tables = InputTables(inputs, model.item_bias, model.global_mean)
    found = networks.user_tower.user(UserInput(recent, attributes, own), tables)
    return UserRepresentation(found.factors, model.global_mean + found.bias, seen)


def _n_columns(model: ItemTables) -> int:
    """Return the number of columns of users."""
    if model.networks is not None and model.networks.features is not None:
        return len(model.networks.features.user_sizes)
    return 0 if model.user_attributes is None else int(model.user_attributes.shape[1])
