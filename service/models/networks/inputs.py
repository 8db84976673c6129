"""What networks compute from, and what a user tower returns."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.history.user_history import UserHistory

Float32 = NDArray[np.float32]


class UserInput(NamedTuple):
    """A user as the input of a user tower.

    Attributes:
        history: The interactions, oldest first, at most the window of the fold-in.
        attributes: Int32 (c,), a category for each column of users, 0 for an unknown one; empty if the model has none.
        own: Float32 (d,), the vector that training has found for this very user; None if the user is unknown.
    """

    history: UserHistory
    attributes: NDArray[np.int32]
    own: Float32 | None = None


class TowerOutput(NamedTuple):
    """A user as a user tower computes them.

    Attributes:
        factors: Float32 (k,).
        bias: Added to every score of the user.
    """

    factors: Float32
    bias: float = 0.0


class InputTables(NamedTuple):
    """The tables of items that a user tower reads.

    Attributes:
        input_factors: Float32 (n_items, d), the embeddings of items as inputs.
        item_bias: Float32 (n_items,).
        global_mean: In units of the rating scale.
    """

    input_factors: Float32
    item_bias: Float32
    global_mean: float
