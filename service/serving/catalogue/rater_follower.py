"""Follows what users do with items that the served model does not know.

Invariant: a state has all actions up to its marks. Until the last snapshot has been read, which needs a model, there is
no state. Actions of an erased user before the request to erase are in no state, whichever source has them.
"""

from collections.abc import Callable, Iterable

from service.catalogue.raters import Action, RaterIndex, RaterState, action_of, key_of
from service.catalogue.served_model import ServedModel
from service.serving.model.store import ModelStore
from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.live.feed_entry import ErasedUser
from telemetry.live.live_feed_reader import FeedBatch
from telemetry.live.state_snapshot import StateSnapshot


class RaterFollower:
    """Gathers actions on new items from snapshots and the feed. Called in the event loop's thread.

    Args:
        store: Holds the served model, which decides which items are new.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._index = RaterIndex()
        # The last snapshot, if its actions are yet to be read.
        self._unread: StateSnapshot | None = None
        # Erasures that the feed delivered while a snapshot was unread, because that may have actions of these users.
        self._erased: list[ErasedUser] = []

    def __repr__(self) -> str:
        return f"<RaterFollower of {len(self._index)} items{'' if self.is_complete else ', unread'}>"

    @property
    def is_complete(self) -> bool:
        """Whether the actions of the last snapshot were read."""
        return self._unread is None

    def is_ahead_of(self, served: ServedModel) -> bool:
        """Return whether there is a state that a served model does not have."""
        return self.is_complete and served.raters_revision != self._index.revision

    def state(self) -> RaterState | None:
        """Return a copy of the state now; None while it is not complete."""
        return self._index.copy() if self.is_complete else None

    def take(self, snapshot: StateSnapshot) -> None:
        """Take a snapshot, whose actions `read` adds."""
        self._unread = snapshot

    async def read(self) -> None:
        """Read the actions of the last snapshot in a thread, once there is a model."""
        snapshot = self._unread
        if snapshot is None or self._store.version is None:
            return
        is_new = self._is_new_item()
        for one in await run_in_daemon_thread(lambda: list(snapshot.item_actions(is_new)), "item-state-loader"):
            action = Action(one.time_ms, one.type, one.value, one.received_ms)
            self._index.add(one.item_id, one.user_half, action)
        self._forget(self._erased)
        self._index.drop_items(lambda item_id: not is_new(item_id))
        self._index.pass_marks(snapshot.marks)
        if self._unread is snapshot:
            self._unread = None
            self._erased.clear()

    def apply(self, batch: FeedBatch) -> None:
        """Apply the events and erasures that the feed delivered, up to its marks."""
        is_new = self._is_new_item()
        for event in batch.events:
            if is_new(event.item_id):
                self._index.add(event.item_id, key_of(event.user_id), action_of(event))
        self._forget(batch.erased)
        if not self.is_complete:
            self._erased += batch.erased
        self._index.pass_marks(batch.marks)

    def _forget(self, erased: Iterable[ErasedUser]) -> None:
        for user_id, requested_ms in erased:
            self._index.forget(user_id, requested_ms)

    def _is_new_item(self) -> Callable[[str], bool]:
        """Return a function that says whether an item is unknown to the served model; without a model each one is."""
        if self._store.version is None:
            return lambda _item_id: True
        known = self._store.model.items.row_of
        return lambda item_id: item_id not in known
