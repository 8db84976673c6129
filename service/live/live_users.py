"""Users as a model scores them with their live events: the merged history, folded in.

Invariant: the result depends on the model and the user's live events alone, so that every replica answers the same.
Users without live events cost one look-up.

A model with a slow tower, such as a transformer, computes its users in a thread: of a user who is known here, when an
event comes; of another, when a list is asked for. A request waits for the thread only if it comes before the result.
"""

import asyncio
import weakref
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.lists.item_scores import ListUser
from service.live.live_state import LiveState, UserEvents
from service.live.merged_history import MergedHistory, merged_history
from service.live.user_worker import UserWorker
from service.models.fold_in.representation import UserRepresentation
from service.models.history.user_history import UserHistory
from service.models.snapshot import ModelSnapshot
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
        self._worker = UserWorker()
        # Users who are computed ahead of a request; None before the first user whom the thread computed.
        self._ahead: dict[str, asyncio.Task[LiveUser | None]] | None = None
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
        kept, is_current = self._known(snapshot, user_id, user_row)
        if is_current:
            return None if kept is None else kept.user
        events, user, merged = self._unfolded(snapshot, user_id, user_row, kept)
        if merged is not None and user is not None:
            user = _with(user, merged, merged.folded(snapshot, user_row))
        self._keep(user_id, user_row, events, user)
        return user

    async def computed(self, snapshot: ModelSnapshot, user_id: str, user_row: int | None) -> LiveUser | None:
        """Return a user as `user` does; of a model with a slow tower a thread computes what is not kept."""
        if not snapshot.computes_users_slowly:
            return self.user(snapshot, user_id, user_row)
        kept, is_current = self._known(snapshot, user_id, user_row)
        if is_current:
            return None if kept is None else kept.user
        events, user, merged = self._unfolded(snapshot, user_id, user_row, kept)
        if events is None or user is None or merged is None:
            self._keep(user_id, user_row, events, user)
            return user
        # Not the current one from here on, so that a request that comes before the result waits for it, too.
        self._kept.pop(user_id, None)
        self._ahead = {} if self._ahead is None else self._ahead
        key = user_row, events.revision, id(snapshot)
        found = await self._worker.computed(user_id, key, lambda: merged.folded(snapshot, user_row))
        user = _with(user, merged, found)
        # An event since, or another model, makes the result too old to keep; for this list it is not.
        if user_id not in self._stale and self._snapshot is not None and self._snapshot() is snapshot:
            self._keep(user_id, user_row, events, user)
        return user

    def compute_ahead(self, snapshot: ModelSnapshot, user_id: str, user_row: int | None) -> None:
        """Begin to compute a user whose event has come, if a thread does that and has not too much to do."""
        self._ahead = ahead = {} if self._ahead is None else self._ahead
        if user_id in ahead or self._worker.is_busy or not snapshot.computes_users_slowly:
            return

        def end(task: asyncio.Task[LiveUser | None]) -> None:
            del ahead[user_id]
            # An error comes again, to the request that asks for the user.
            if not task.cancelled() and task.exception() is None and user_id in self._stale:
                self.compute_ahead(snapshot, user_id, user_row)

        ahead[user_id] = asyncio.get_running_loop().create_task(self.computed(snapshot, user_id, user_row))
        ahead[user_id].add_done_callback(end)

    def unfolded(self, snapshot: ModelSnapshot, user_id: str, user_row: int | None) -> LiveUser | None:
        """Return a user with live events as `user` does, without a representation and in less time."""
        events = self.state.user(user_id)
        merged = None if events is None else merged_history(snapshot, user_row, events.events, self._seen_types)
        return None if events is None or merged is None or merged.is_as_trained else _user_of(snapshot, events, merged)

    def _known(self, snapshot: ModelSnapshot, user_id: str, user_row: int | None) -> tuple[_Kept | None, bool]:
        """Return what is kept of a user, and whether it is current: without a kept one, that the user has no events."""
        if self._snapshot is None or self._snapshot() is not snapshot:
            self._snapshot = weakref.ref(snapshot)
            self._kept.clear()
            self._worker.forget()
            self._changed(None)
        if user_id in self._absent:
            return None, True
        kept = self._kept.get(user_id)
        is_current = (
            kept is not None
            and user_id not in self._stale
            and kept.user_row == user_row
            and kept.oldest_ms >= self.state.since_ms
        )
        return kept, is_current

    def _unfolded(
        self, snapshot: ModelSnapshot, user_id: str, user_row: int | None, kept: _Kept | None
    ) -> tuple[UserEvents | None, LiveUser | None, MergedHistory | None]:
        """Return a user's events, the user without a representation, and the history to compute it from.

        Without that history the user is complete; without events that count there is no user.
        """
        self._stale.discard(user_id)
        events = self.state.user(user_id)
        if events is None:
            return None, None, None
        if kept is not None and (kept.user_row, kept.revision) == (user_row, events.revision):
            # The feed has delivered events since, which changes where they are from, and not what they are.
            return events, kept.user._replace(watermark=events.watermark), None
        merged = merged_history(snapshot, user_row, events.events, self._seen_types)
        if merged.is_as_trained:
            return events, None, None
        return events, _user_of(snapshot, events, merged), merged

    def _keep(self, user_id: str, user_row: int | None, events: UserEvents | None, user: LiveUser | None) -> None:
        if events is None or user is None:
            self._kept.pop(user_id, None)
            _keep(self._absent, user_id, None, _MOST_ABSENT)
        else:
            _keep(self._kept, user_id, _Kept(user_row, events.revision, events.oldest_ms, user), _MOST_KEPT)

    def _changed(self, user_id: str | None) -> None:
        if user_id is None:
            self._absent.clear()
            self._stale.update(self._kept, self._worker.users)
            return
        self._absent.pop(user_id, None)
        if user_id in self._kept or user_id in self._worker.users:
            self._stale.add(user_id)
            kept, snapshot = self._kept.get(user_id), None if self._snapshot is None else self._snapshot()
            if self._ahead is not None and kept is not None and snapshot is not None:
                self.compute_ahead(snapshot, user_id, kept.user_row)


def _user_of(snapshot: ModelSnapshot, events: UserEvents, merged: MergedHistory) -> LiveUser:
    """Return a user without a representation."""
    latest_ms = max((event.time_ms for event in events.events if event.type != IMPRESSION), default=0)
    as_of = max(snapshot.data_as_of, rfc3339_ms(latest_ms / _MS_PER_S))
    return LiveUser(None, merged.seen, merged.history, merged.n_live, as_of, events.watermark, merged.shown)


def _with(user: LiveUser, merged: MergedHistory, found: UserRepresentation | None) -> LiveUser:
    return user if found is None else user._replace(representation=found._replace(seen=merged.seen))


def _keep(found: dict[str, _T], user_id: str, value: _T, most: int) -> None:
    """Keep a value; of too many the oldest goes."""
    if user_id not in found and len(found) >= most:
        del found[next(iter(found))]
    found[user_id] = value
