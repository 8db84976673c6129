"""The history before an interaction, by looking at every interaction: the slow equivalent of `recent_histories`."""

import numpy as np

from service.models.history.user_history import UserHistory
from service.training.assembly import event_types
from service.training.interactions import Interactions


def history_before(data: Interactions, position: int, window: int) -> UserHistory:
    """Return what the user of an interaction did before it, oldest first."""

    def moment(other: int) -> tuple[int, int]:
        return (0 if data.timestamps is None else int(data.timestamps[other]), other)

    own = np.flatnonzero(data.user_rows == data.user_rows[position]).tolist()
    earlier = sorted((other for other in own if moment(other) < moment(position)), key=moment)[-window:]
    times_s = None if data.timestamps is None else data.timestamps[earlier]
    return UserHistory(data.item_rows[earlier], data.ratings[earlier], event_types(data)[earlier], times_s)
