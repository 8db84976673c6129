"""Who liked the items that the served model was not trained on: of each item the latest actions of some users.

Invariants: bounded, by the number of items and of users of an item. Of a user's actions on an item one counts, so that
neither order nor repetition of deliveries matters: within the bounds the index is a function of the archived events up
to its marks, and a served list names marks and a checksum. Users are digests; an erased user is forgotten. Pure.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.models.history.event_values import EVENT_RANKS, EVENT_VALUES
from service.models.history.rating_scale import RatingScale
from service.models.snapshot import ModelSnapshot
from telemetry.batch import Position
from telemetry.live.event_layer import first_half, user_key
from telemetry.live.live_event import LiveEvent
from telemetry.live.state_watermark import marks_text, parse_watermark
from telemetry.pseudonym import Pseudonymiser

MAX_ITEMS: Final = 50_000
MAX_RATERS: Final = 500
# On the scale of `EVENT_VALUES`.
_LIKED: Final = 3.0
_CHECKSUM_MARK: Final = "~"


class Action(NamedTuple):
    """What a user did with an item: the action of the highest rank, and of equal ones the latest."""

    time_ms: int
    type: str
    value: float | None
    received_ms: int = 0

    @property
    def order(self) -> tuple[int, int, str, float]:
        """The larger one of two actions counts."""
        return EVENT_RANKS.get(self.type, 0), self.time_ms, self.type, self.value or 0.0

    def is_liking(self, scale: RatingScale | None) -> bool:
        """Whether the user liked the item; a rating counts from the middle of the scale on."""
        if self.type != "rating":
            return (EVENT_VALUES.get(self.type) or 0.0) >= _LIKED
        return self.value is not None and (scale is None or self.value >= scale.middle)


Raters = dict[str, dict[int, Action]]
"""By item and digest of a user."""


class RaterState(NamedTuple):
    """The raters at a moment, which another thread may read.

    Attributes:
        raters: The actions.
        marks: All events up to these positions are in them.
        revision: That of the index.
    """

    raters: Raters
    marks: Mapping[str, Position]
    revision: int = 0

    def watermark(self, item_ids: Iterable[str]) -> str:
        """Return a text for an event that names the state of some items; empty if no user acted on them."""
        found = self.checksum(item_ids)
        return f"{marks_text(self.marks)}{_CHECKSUM_MARK}{found}" if found else ""

    def checksum(self, item_ids: Iterable[str]) -> str:
        """Return the number of actions on some items and their CRC-32; empty without any."""
        cells = sorted(
            f"{item_id}\n{key}\n{action.order}"
            for item_id in item_ids
            for key, action in self.raters.get(item_id, {}).items()
        )
        return f"{len(cells)}:{zlib.crc32(chr(0).join(cells).encode()):08x}" if cells else ""


def parse_raters(text: str) -> tuple[dict[str, Position], str]:
    """Return the marks and the checksum of a `RaterState.watermark`; raises BadEventError."""
    marks, _, checksum = text.partition(_CHECKSUM_MARK)
    return dict(parse_watermark(marks).marks), checksum


class RaterIndex:
    """The latest actions on items that a model does not know."""

    def __init__(self) -> None:
        self._raters: Raters = {}
        self._marks: dict[str, Position] = {}
        self._copied: tuple[int, Raters] = (0, {})
        self.revision = 0
        """Grows whenever an action is added or forgotten."""

    def __len__(self) -> int:
        return len(self._raters)

    def pass_marks(self, marks: Mapping[str, Position]) -> None:
        """Note that all events up to these positions were added."""
        for producer, mark in marks.items():
            self._marks[producer] = max(mark, self._marks.get(producer, mark))

    def add(self, item_id: str, key: int, action: Action) -> None:
        """Add an action of a user; beyond the bounds the item that was added first and the oldest action go."""
        if action.type not in EVENT_VALUES:
            # An impression.
            return
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
            del raters[min(raters, key=lambda user: (raters[user].time_ms, user))]
        self.revision += 1

    def forget(self, user_id: str, requested_ms: int) -> None:
        """Forget what was received of a user up to a request to erase."""
        key = key_of(user_id)
        for raters in self._raters.values():
            action = raters.get(key)
            if action is not None and action.received_ms <= requested_ms:
                del raters[key]
                self.revision += 1

    def drop_items(self, is_dropped: Callable[[str], bool]) -> None:
        """Forget the actions on some items, chosen by id."""
        dropped = [item_id for item_id in self._raters if is_dropped(item_id)]
        for item_id in dropped:
            del self._raters[item_id]
        self.revision += bool(dropped)

    def copy(self) -> RaterState:
        """Return the state now."""
        if self._copied[0] != self.revision:
            self._copied = self.revision, {item_id: dict(raters) for item_id, raters in self._raters.items()}
        return RaterState(self._copied[1], dict(self._marks), self.revision)


def key_of(user_id: str) -> int:
    """Return the first half of the digest of a user."""
    return first_half(user_key(user_id))


def action_of(event: LiveEvent) -> Action:
    """Return what an event says."""
    return Action(event.time_ms, event.type, event.value, event.received_ms)


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
