"""Who liked the items that the served model was not trained on: of each item the latest actions of some users.

Invariants: bounded, by the number of items and of users of an item. Of a user's actions on an item one counts, so that
neither order nor repetition of deliveries matters. Users are digests; an erased user is forgotten. Pure.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.event_values import EVENT_RANKS, EVENT_VALUES
from service.models.rating_scale import RatingScale
from service.models.snapshot import ModelSnapshot
from telemetry.live.event_layer import user_key
from telemetry.live.live_event import LiveEvent
from telemetry.pseudonym import Pseudonymiser

MAX_ITEMS: Final = 10_000
MAX_RATERS: Final = 500
# On the scale of `EVENT_VALUES`.
_LIKED: Final = 3.0
_KEY_BYTES: Final = 8


class Action(NamedTuple):
    """What a user did with an item: the action of the highest rank, and of equal ones the latest."""

    time_ms: int
    type: str
    value: float | None

    @property
    def order(self) -> tuple[int, int, str, float]:
        """The larger one of two actions counts."""
        return EVENT_RANKS.get(self.type, 0), self.time_ms, self.type, self.value or 0.0

    def is_liking(self, scale: RatingScale | None) -> bool:
        """Whether the user liked the item; a rating counts from the middle of the scale on."""
        if self.type != "rating":
            return (EVENT_VALUES.get(self.type) or 0.0) >= _LIKED
        return self.value is not None and (scale is None or self.value >= (scale.low + scale.high) / 2)


Raters = dict[str, dict[int, Action]]
"""By item and digest of a user."""


class RaterIndex:
    """The latest actions on items that a model does not know."""

    def __init__(self) -> None:
        self._raters: Raters = {}
        self.revision = 0
        """Grows whenever an action is added or forgotten."""

    def __len__(self) -> int:
        return len(self._raters)

    def add(self, item_id: str, key: int, action: Action) -> None:
        """Add an action of a user; beyond the bounds the item or user that was added first is forgotten."""
        raters = self._raters.get(item_id)
        if raters is None:
            if len(self._raters) >= MAX_ITEMS:
                del self._raters[next(iter(self._raters))]
            raters = self._raters[item_id] = {}
        known = raters.get(key)
        if known is not None and known.order >= action.order:
            return
        raters[key] = action
        if len(raters) > MAX_RATERS:
            del raters[next(iter(raters))]
        self.revision += 1

    def forget(self, user_id: str) -> None:
        """Forget a user."""
        key = key_of(user_id)
        for raters in self._raters.values():
            self.revision += raters.pop(key, None) is not None

    def copy(self) -> Raters:
        """Return a copy, which another thread may read."""
        return {item_id: dict(raters) for item_id, raters in self._raters.items()}


def key_of(user_id: str) -> int:
    """Return the digest of a user."""
    return int.from_bytes(user_key(user_id)[:_KEY_BYTES])


def action_of(event: LiveEvent) -> Action:
    """Return what an event says."""
    return Action(event.time_ms, event.type, event.value)


class UserRows:
    """The rows of a model's users by digest: 12 bytes a user.

    Args:
        user_ids: The users of the model, in row order.
        pseudonyms: Map them to the users of events.
    """

    def __init__(self, user_ids: Iterable[str], pseudonyms: Pseudonymiser) -> None:
        keys: list[int] = []
        rows: list[int] = []
        for row, user_id in enumerate(user_ids):
            # A model trained on archived events holds pseudonyms.
            for name in {user_id, pseudonyms.pseudonym(user_id)}:
                keys.append(key_of(name))
                rows.append(row)
        order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
        self._keys: Final = np.array(keys, dtype=np.uint64)[order]
        self._rows: Final = np.array(rows, dtype=np.int32)[order]

    def of(self, keys: Iterable[int]) -> NDArray[np.int64]:
        """Return the rows of the users that the model has, int64, ascending."""
        wanted = np.array(sorted(keys), dtype=np.uint64)
        places = np.minimum(np.searchsorted(self._keys, wanted), max(0, self._keys.size - 1))
        if not self._keys.size:
            return np.empty(0, dtype=np.int64)
        return np.unique(self._rows[places[self._keys[places] == wanted]]).astype(np.int64)


def liking_rows(raters: dict[int, Action], users: UserRows, model: ModelSnapshot) -> NDArray[np.int64]:
    """Return the users of the model who liked an item: int64, ascending."""
    scale = model.rating_scale
    return users.of(key for key, action in raters.items() if action.is_liking(scale))
