"""The users of one shard apart from the rest of their model, so that a worker holds the items and its own users alone.

Invariant: a user of the joined model has the representation and the lists of the same user in the whole one.
"""

import copy
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.models.neighbourhood import row_entries
from service.models.snapshot import Float32, ModelSnapshot
from service.models.vocabulary import Vocabulary

# What is computed of users when it is first asked for.
_OF_USERS: Final = ("user_constants", "has_user_factors", "seen_by", "max_exact_over_approx", "_folded_users")


class UserPart(NamedTuple):
    """The tables of some users, as those of `ModelSnapshot`.

    Attributes:
        user_factors: Float32 (b, k).
        user_bias: Float32 (b,).
        history: Float32 CSR (b, n_items).
        history_ranks: Int32, of each entry of `history`; None if the model has none.
        history_times: Int64, as well.
        history_types: Uint8, as well.
        user_inputs: Float32 (b, d); None if the model has none.
        user_attributes: Int32 (b, c); None if the model has none.
    """

    user_factors: Float32
    user_bias: Float32
    history: csr_array
    history_ranks: NDArray[np.int32] | None
    history_times: NDArray[np.int64] | None
    history_types: NDArray[np.uint8] | None
    user_inputs: Float32 | None
    user_attributes: NDArray[np.int32] | None

    @classmethod
    def of(cls, snapshot: ModelSnapshot, rows: NDArray[np.int64]) -> "UserPart":
        """Return the users of some rows, int64 (b,), as copies."""
        history = snapshot.history
        entries, counts = row_entries(history, rows)
        indptr = np.zeros(rows.size + 1, np.int64)
        np.cumsum(counts, out=indptr[1:])
        part = csr_array(
            (history.data[entries], history.indices[entries], indptr), shape=(rows.size, history.shape[1]), copy=False
        )
        return cls(
            snapshot.user_factors.take(rows, axis=0),
            snapshot.user_bias.take(rows),
            part,
            None if snapshot.history_ranks is None else snapshot.history_ranks[entries],
            None if snapshot.history_times is None else snapshot.history_times[entries],
            None if snapshot.history_types is None else snapshot.history_types[entries],
            None if snapshot.user_inputs is None else snapshot.user_inputs.take(rows, axis=0),
            None if snapshot.user_attributes is None else snapshot.user_attributes.take(rows, axis=0),
        )

    def joined(self, items: ModelSnapshot) -> ModelSnapshot:
        """Return a model of these users with the items of another one; its users have rows and no ids."""
        return _with_users(items, self)


def is_separable(snapshot: ModelSnapshot) -> bool:
    """Whether a user's lists depend on no other user: not where users are each other's neighbours."""
    return snapshot.neighbourhood is None or snapshot.neighbourhood.over == "items"


def without_users(snapshot: ModelSnapshot) -> ModelSnapshot:
    """Return a model without its users, and without an item index, because bulk lists score every item."""
    return _with_users(snapshot, UserPart.of(snapshot, np.empty(0, np.int64)))


def _with_users(snapshot: ModelSnapshot, part: UserPart) -> ModelSnapshot:
    # A copy without the checks of a new snapshot, which read all items: both were checked.
    joined = copy.copy(snapshot)
    fields: dict[str, Any] = {"users": Vocabulary(()), "item_index": None, "user_clusters": None, "manifest": {}}
    for name in _OF_USERS:
        vars(joined).pop(name, None)
    vars(joined).update(part._asdict() | fields)
    return joined
