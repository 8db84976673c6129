"""A user's training interactions and live events as one history in a model's rows (pure).

Invariant: it is the history that a training on both would give. Of the interactions with one item that of the highest
rank stays (`service.models.history.event_values`), and among equals the latest; the order is that of time, and of equal
times live events come after training interactions.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.fold_in.representation import UserRepresentation
from service.models.folded_user import folded_user
from service.models.history.event_values import EVENT_RANKS
from service.models.history.user_history import EVENT_TYPES, NO_HISTORY, UserHistory
from service.models.snapshot import ModelSnapshot
from telemetry.live.live_event import IMPRESSION, LiveEvent

_MS_PER_S: Final = 1000
_TYPE_INDEX: Final = {name: index for index, name in enumerate(EVENT_TYPES)}
_RANK_OF_TYPE: Final = np.array([EVENT_RANKS[name] for name in EVENT_TYPES], dtype=np.int64)


class MergedHistory(NamedTuple):
    """A user's history with the live events in it.

    Attributes:
        history: In the model's rows.
        seen: Int32, ascending: the items to leave out of lists.
        n_live: How many of the live events are of items that the model knows.
        shown: How often each row was shown, according to impressions, since the user last acted on it.
    """

    history: UserHistory
    seen: NDArray[np.int32]
    n_live: int
    shown: Mapping[int, int] = {}

    @property
    def is_as_trained(self) -> bool:
        """Whether no live event is of an item that the model knows."""
        return not self.n_live and not self.shown

    def folded(self, snapshot: ModelSnapshot, user_row: int | None) -> UserRepresentation | None:
        """Compute the user in the model; None without live interactions, or if the model cannot fold in."""
        return folded_user(snapshot, user_row, self.history) if self.n_live else None


def merged_history(
    snapshot: ModelSnapshot, user_row: int | None, events: Sequence[LiveEvent], seen_types: Container[str]
) -> MergedHistory:
    """Merge live events into the training interactions of a user.

    Args:
        snapshot: The model.
        user_row: The user in the model; None if it does not know the user.
        events: The live events, in their order.
        seen_types: The types of live events whose items are left out of lists, as all training interactions are.
    """
    trained = NO_HISTORY if user_row is None else snapshot.user_history(user_row)
    row_of = snapshot.items.row_of
    live = [
        (row, event) for event in events if (row := row_of.get(event.item_id)) is not None and event.type in _TYPE_INDEX
    ]
    live_values = [snapshot.value_of(event.type, event.value) for _, event in live]
    rows = np.concatenate([trained.rows, np.array([row for row, _ in live], dtype=np.int32)])
    values = np.concatenate([trained.values, np.array(live_values, np.float32)])
    types = np.concatenate([trained.types, np.array([_TYPE_INDEX[event.type] for _, event in live], np.uint8)])
    times_s = None
    order = np.arange(rows.size)
    if trained.times_s is not None:
        times_s = np.concatenate([trained.times_s, np.array([event.time_ms // _MS_PER_S for _, event in live], int)])
        order = np.argsort(times_s, kind="stable")
    chosen = order[_last_of_each_item(rows[order], _RANK_OF_TYPE[types[order]])]
    seen_live = np.array([row for row, event in live if event.type in seen_types], dtype=np.int32)
    return MergedHistory(
        UserHistory(rows[chosen], values[chosen], types[chosen], None if times_s is None else times_s[chosen]),
        np.unique(np.concatenate([trained.rows, seen_live])),
        len(live),
        _shown(snapshot, events),
    )


def _shown(snapshot: ModelSnapshot, events: Sequence[LiveEvent]) -> dict[int, int]:
    shown: dict[int, int] = {}
    for event in events:
        row = snapshot.items.row_of.get(event.item_id)
        if row is None:
            continue
        if event.type == IMPRESSION:
            shown[row] = shown.get(row, 0) + 1
        else:
            shown.pop(row, None)
    return shown


def _last_of_each_item(rows: NDArray[np.int32], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places, ascending, of the interaction that stays of each item: the last one of the highest rank."""
    places = np.lexsort((ranks, rows))
    is_last = np.ones(places.size, dtype=bool)
    is_last[:-1] = rows[places[1:]] != rows[places[:-1]]
    return np.sort(places[is_last])
