"""The lists that a model would serve, for many users at once, as one array.

Invariant: `service.models.ranking.personal_lists` makes them from the snapshot, as in a replica: the whole catalogue
without the user's training items. So a measure of them is a measure of what is served.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.models.ranking.personal_lists import personal
from service.models.ranking.scoring import TopNRequest
from service.models.snapshot import ModelSnapshot
from service.training.interactions import Int64

# A batch of float32 scores, every item for each user, should fit into a large cache.
_BATCH_BYTES: Final = 16 << 20
NO_ITEM: Final = -1


def top_n_lists(snapshot: ModelSnapshot, user_rows: Int64, n: int) -> NDArray[np.int32]:
    """Rank the catalogue for some users, int64 (m,).

    Returns:
        int32 (m, n), item rows, best first; `NO_ITEM` (-1) at the end of a shorter list.
    """
    lists = np.full((user_rows.size, n), NO_ITEM, dtype=np.int32)
    size = max(1, _BATCH_BYTES // (4 * max(1, len(snapshot.items))))
    for start in range(0, user_rows.size, size):
        requests = [TopNRequest(row, n) for row in user_rows[start : start + size].tolist()]
        for index, ranking in enumerate(personal(snapshot, requests), start):
            lists[index, : ranking.rows.size] = ranking.rows
    return lists
