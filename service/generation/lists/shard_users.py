"""The users of one shard, with what a worker needs of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.generation.lists.list_model import BulkModel
from service.generation.lists.user_part import UserPart, is_separable
from service.models.snapshot import ModelSnapshot
from telemetry.live.live_event import LiveEvent


class ShardUsers(NamedTuple):
    """Users in the order of their lists.

    Attributes:
        ids: The b users.
        rows: Int64 (b,), in the model of the task; -1 of a user whom the model does not know.
        part: The tables of the users whom the model knows, in their order; None if the model of the task has them.
        live: By place: the live events of a user who has any, in their order.
    """

    ids: Sequence[str]
    rows: NDArray[np.int64]
    part: UserPart | None
    live: Mapping[int, Sequence[LiveEvent]]

    @classmethod
    def of(
        cls,
        snapshot: ModelSnapshot,
        ids: Sequence[str],
        rows: NDArray[np.int64],
        live: Mapping[int, Sequence[LiveEvent]],
    ) -> "ShardUsers":
        """Return users of a whole model, whose rows are int64 (b,), -1 of one whom it does not know."""
        if not is_separable(snapshot):
            return cls(ids, rows, None, live)
        is_known = rows >= 0
        own = np.where(is_known, np.cumsum(is_known) - 1, -1)
        return cls(ids, own, UserPart.of(snapshot, rows[is_known]), live)

    def model(self, model: BulkModel) -> ModelSnapshot:
        """Return the model with these users."""
        return model.snapshot if self.part is None else self.part.joined(model.snapshot)
