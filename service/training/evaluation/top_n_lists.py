"""The lists that a model would serve, for many users at once, as one table.

Invariant: they are what a replica answers with, computed by `service.models.scoring.personal` from the snapshot: the
whole catalogue without the training items of the user. A measure of them is a measure of what is served.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.scoring import TopNRequest, personal
from service.models.snapshot import ModelSnapshot
from service.training.interactions import Int64

# The float32 scores of a batch, every item for each of its users, should not leave a large cache.
_BATCH_BYTES: Final = 16 << 20
NO_ITEM: Final = -1


def top_n_lists(snapshot: ModelSnapshot, user_rows: Int64, n: int) -> NDArray[np.int32]:
    """Rank the catalogue for some users.

    Args:
        snapshot: The model.
        user_rows: Int64 (m,).
        n: How many items to a list.

    Returns:
        int32 (m, n), item rows, best first; `NO_ITEM` (-1) in the places that a list is short of.
    """
    lists = np.full((user_rows.size, n), NO_ITEM, dtype=np.int32)
    size = max(1, _BATCH_BYTES // (4 * max(1, len(snapshot.items))))
    for start in range(0, user_rows.size, size):
        wanted = [TopNRequest(row, n) for row in user_rows[start : start + size].tolist()]
        for index, ranking in enumerate(personal(snapshot, wanted), start):
            lists[index, : ranking.rows.size] = ranking.rows
    return lists
