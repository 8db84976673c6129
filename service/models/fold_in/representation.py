"""A user as a model scores them."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_NO_ROWS: Final = np.empty(0, dtype=np.int32)
_NO_WEIGHTS: Final = np.empty(0, dtype=np.float64)


class UserRepresentation(NamedTuple):
    """What the score of every item for one user is computed from.

    With factors x, the score of item i is constant + item_bias[i] + x · item_factors[i]. In a model with item
    neighbours W it is constant + item_bias[i] + the combination of weights[j] * W[inputs[j], i] over j.

    Attributes:
        factors: Float32 (k,); of length 0 in a model with neighbours.
        constant: The global mean plus the user's bias.
        seen: Int32 (s,), ascending, the items left out of the user's lists.
        inputs: Int32 (m,), the items whose neighbours get scores in a model with item neighbours.
        weights: Float64 (m,), the signal of each input.
    """

    factors: NDArray[np.float32]
    constant: float
    seen: NDArray[np.int32]
    inputs: NDArray[np.int32] = _NO_ROWS
    weights: NDArray[np.float64] = _NO_WEIGHTS
