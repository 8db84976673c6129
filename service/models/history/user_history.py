"""The interactions of one user in the rows of a model.

Invariant: entries are in the order of time, oldest first; of equal times the later line of the source is the later
interaction. An item occurs once, at its latest interaction.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.history.event_types import CLICK, DISMISS, EVENT_TYPES, PURCHASE, RATING, VIEW

__all__ = ["CLICK", "DISMISS", "EVENT_TYPES", "NO_HISTORY", "PURCHASE", "RATING", "VIEW", "UserHistory"]


class UserHistory(NamedTuple):
    """A user's interactions, oldest first.

    Attributes:
        rows: Int32 (m,), item rows, each once.
        values: Float32 (m,), the rating, or what the type of event counts as on the rating scale.
        types: Uint8 (m,), indices in `EVENT_TYPES`.
        times_s: Int64 (m,), Unix seconds; None if the training data has no times.
    """

    rows: NDArray[np.int32]
    values: NDArray[np.float32]
    types: NDArray[np.uint8]
    times_s: NDArray[np.int64] | None = None


NO_HISTORY: Final = UserHistory(
    np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.int64)
)
"""The history of a user without interactions."""
