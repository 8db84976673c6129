"""Sessions: what a visitor has just done, as the latest interactions of the list's user.

A session needs no events and no user, and leaves nothing behind. Its items are left out of the list.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.lists.item_scores import ListUser
from service.models.folded_user import folded_user
from service.models.history.event_values import EVENT_RANKS
from service.models.history.user_history import EVENT_TYPES, NO_HISTORY, UserHistory
from service.models.snapshot import ModelSnapshot

DEFAULT_TYPE: Final = "view"


class SessionItem(NamedTuple):
    """An interaction of a session; the value counts for a rating."""

    item_id: str
    type: str = DEFAULT_TYPE
    value: float | None = None


class _Interaction(NamedTuple):
    row: int
    type: str
    value: float
    time_s: int


def with_session(
    snapshot: ModelSnapshot,
    user: ListUser | None,
    session: Sequence[SessionItem],
    now_s: float,
    *,
    folds: bool = True,
    attributes: NDArray[np.int32] | None = None,
) -> ListUser | None:
    """Return the user of a list after a session.

    The interactions of a session come after all others, at the time of the request and in the order given. An item that
    the user, or the session, had before moves to its last place there; of its types that of the highest rank stays, so
    that looking again at an item does not undo a rating.

    Args:
        snapshot: The model.
        user: The user so far; None for an unknown one.
        session: The interactions, the latest last.
        now_s: The time of the request.
        folds: Whether there is time to compute the user.
        attributes: Int32 (c,), the user's categories for a network; None for those published with the model.

    Returns:
        The user, or what was given if the model knows no item of the session. Without a fold-in the items are left out
        and scores are as before.
    """
    row_of = snapshot.items.row_of
    known = [item for item in session if item.item_id in row_of]
    if not known:
        return user
    rows = np.array([row_of[item.item_id] for item in known], dtype=np.int32)
    seen = rows if user is None else np.concatenate([user.seen_rows(snapshot), rows])
    seen = np.unique(seen).astype(np.int32)
    row, shown = (None, {}) if user is None else (user.row, user.shown)
    if not folds:
        return ListUser(row, seen_since=seen, shown=shown)
    before = NO_HISTORY if user is None else user.known_history(snapshot)
    history = _appended(snapshot, before, known, int(now_s))
    folded = folded_user(snapshot, row, history, attributes)
    if folded is None:
        return ListUser(row, seen_since=seen, history=history, shown=shown)
    return ListUser(row, folded._replace(seen=seen), history=history, source="session", shown=shown)


def _appended(snapshot: ModelSnapshot, before: UserHistory, session: Sequence[SessionItem], now_s: int) -> UserHistory:
    latest: dict[int, _Interaction] = {}
    known_before = {
        row: _Interaction(row, EVENT_TYPES[type_], value, now_s)
        for row, type_, value in zip(before.rows.tolist(), before.types.tolist(), before.values.tolist(), strict=True)
    }
    for item in session:
        row = snapshot.items.row_of[item.item_id]
        given = _Interaction(row, item.type, snapshot.value_of(item.type, item.value), now_s)
        earlier = latest.pop(row, None) or known_before.get(row)
        keeps = earlier is not None and EVENT_RANKS[earlier.type] > EVENT_RANKS[given.type]
        latest[row] = earlier if keeps and earlier is not None else given
    keep = ~np.isin(before.rows, list(latest))
    added = list(latest.values())
    times_s = None
    if before.times_s is not None:
        # A clock behind that of the history must not put the session before it.
        last_s = int(before.times_s.max(initial=now_s))
        times_s = np.concatenate([before.times_s[keep], np.full(len(added), last_s, dtype=np.int64)])
    return UserHistory(
        np.concatenate([before.rows[keep], np.array([one.row for one in added], np.int32)]),
        np.concatenate([before.values[keep], np.array([one.value for one in added], np.float32)]),
        np.concatenate([before.types[keep], np.array([EVENT_TYPES.index(one.type) for one in added], np.uint8)]),
        times_s,
    )
