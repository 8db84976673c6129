"""Users as a model scores them with their live events: the merged history, folded in.

Invariant: the result depends on the model and the user's live events alone, so that every replica answers the same.
Users without live events cost one look-up.
"""

import weakref
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.lists.item_scores import ListUser
from service.live.live_state import LiveState, UserEvents
from service.live.merged_history import merged_history
from service.models.representation import UserRepresentation
from service.models.snapshot import ModelSnapshot
from service.models.user_history import UserHistory
from telemetry.batch import EventPosition
from telemetry.events import Feedback, Record, System
from telemetry.ids import rfc3339_ms
from telemetry.live.feed_entry import ErasedUser
from telemetry.live.live_event import DEFAULT_TYPES, IMPRESSION, live_event, unix_ms

# Each takes a few kilobytes at usual numbers of factors.
_MOST_KEPT: Final = 4_096
_MOST_ABSENT: Final = 65_536
_T = TypeVar("_T")
_MS_PER_S: Final = 1000


class LiveUser(NamedTuple):
    """A user with live events.

    Attributes:
        representation: The user as the model scores them; None if the model cannot fold in or knows none of the items.
        seen: Int32, ascending: the items to leave out of lists.
        history: Training interactions and live events, merged.
        events_applied: How many live events the history has.
        as_of: The time of the latest interaction, RFC 3339.
        watermark: The state watermark.
        shown: How often each row was shown since the user last acted on it, if impressions are live.
    """

    representation: UserRepresentation | None
    seen: NDArray[np.int32]
    history: UserHistory
    events_applied: int
    as_of: str
    watermark: str
    shown: Mapping[int, int] = {}


def list_user(user_row: int | None, live: LiveUser | None) -> ListUser | None:
    """Return the user of a list; None if neither the model nor the live state knows the user."""
    if live is None:
        return None if user_row is None else ListUser(user_row)
    return ListUser.from_history(user_row, live.representation, live.seen, live.history, live.shown)


class _Kept(NamedTuple):
    user_row: int | None
    revision: int
    oldest_ms: int
    user: LiveUser


class LiveUsers:
    """Computes users with live events, and keeps the latest ones.

    Args:
        state: The live state; this object learns of its changes.
        seen_types: The types of live events whose items are left out of lists.
        types: The types of feedback that are live.
    """

    def __init__(self, state: LiveState, seen_types: Container[str], types: Collection[str] = DEFAULT_TYPES) -> None:
        self.state = state
        self._types = types
        self._seen_types = seen_types
        self._kept: dict[str, _Kept] = {}
        # Those of them whose events may have changed.
        self._stale: set[str] = set()
        # Users without live events that count.
        self._absent: dict[str, None] = {}
        # Not the snapshot itself, which may hold users who were erased since.
        self._snapshot: weakref.ref[ModelSnapshot] | None = None
        state.on_change(self._changed)

    def __repr__(self) -> str:
        return f"<LiveUsers {self.state!r} kept={len(self._kept)}>"

    def accept(self, feedback: Sequence[Feedback], first: EventPosition) -> None:
        """Apply feedback that this replica has accepted, the first event at this position and the others behind it."""
        producer, epoch, first_seq = first
        records = (Record(event, producer, epoch, seq) for seq, event in enumerate(feedback, first_seq))
        self.state.accept(event for record in records if (event := live_event(record, self._types)) is not None)

    def erase(self, request: System) -> None:
        """Forget a user, whose erasure this replica has accepted."""
        if request.user_id is not None:
            self.state.erase(ErasedUser(request.user_id, unix_ms(request.received_at)))

    def user(self, snapshot: ModelSnapshot, user_id: str, user_row: int | None) -> LiveUser | None:
        """Return a user with live events; None if the user has none of items that the model knows.

        Args:
            snapshot: The model.
            user_id: The user as in telemetry.
            user_row: The user in the model; None if it does not know the user.
        """
        if self._snapshot is None or self._snapshot() is not snapshot:
            self._snapshot = weakref.ref(snapshot)
            self._kept.clear()
            self._changed(None)
        if user_id in self._absent:
            return None
        kept = self._kept.get(user_id)
        if (
            kept is not None
            and user_id not in self._stale
            and kept.user_row == user_row
            and kept.oldest_ms >= self.state.since_ms
        ):
            return kept.user
        return self._look_up(snapshot, user_id, user_row, kept)

    def unfolded(self, snapshot: ModelSnapshot, user_id: str, user_row: int | None) -> LiveUser | None:
        """Return a user with live events as `user` does, without a representation and in less time."""
        events = self.state.user(user_id)
        return None if events is None else self._merged(snapshot, events, user_row, folds=False)

    def _look_up(
        self, snapshot: ModelSnapshot, user_id: str, user_row: int | None, kept: _Kept | None
    ) -> LiveUser | None:
        self._stale.discard(user_id)
        events = self.state.user(user_id)
        user = None
        if events is not None:
            if kept is not None and (kept.user_row, kept.revision) == (user_row, events.revision):
                # The feed has delivered events since, which changes where they are from, and not what they are.
                user = kept.user._replace(watermark=events.watermark)
            else:
                user = self._merged(snapshot, events, user_row, folds=True)
        if events is None or user is None:
            self._kept.pop(user_id, None)
            _keep(self._absent, user_id, None, _MOST_ABSENT)
        else:
            _keep(self._kept, user_id, _Kept(user_row, events.revision, events.oldest_ms, user), _MOST_KEPT)
        return user

    def _changed(self, user_id: str | None) -> None:
        if user_id is None:
            self._absent.clear()
            self._stale.update(self._kept)
            return
        self._absent.pop(user_id, None)
        if user_id in self._kept:
            self._stale.add(user_id)

    def _merged(
        self, snapshot: ModelSnapshot, events: UserEvents, user_row: int | None, *, folds: bool
    ) -> LiveUser | None:
        merged = merged_history(snapshot, user_row, events.events, self._seen_types)
        if merged.is_as_trained:
            return None
        folded = merged.folded(snapshot, user_row) if folds else None
        latest_ms = max((event.time_ms for event in events.events if event.type != IMPRESSION), default=0)
        return LiveUser(
            None if folded is None else folded._replace(seen=merged.seen),
            merged.seen,
            merged.history,
            merged.n_live,
            max(snapshot.data_as_of, rfc3339_ms(latest_ms / _MS_PER_S)),
            events.watermark,
            merged.shown,
        )


def _keep(found: dict[str, _T], user_id: str, value: _T, most: int) -> None:
    """Keep a value; of too many the oldest goes."""
    if user_id not in found and len(found) >= most:
        del found[next(iter(found))]
    found[user_id] = value
