"""The only mutable object on the request path: which model is being served.

Invariant: `swap` is one assignment, so a request that took `current()` once sees one model from its first look-up to
its last byte, whatever is swapped meanwhile. Whoever asked to be forgotten is in `forgotten` for as long as the served
model still knows them.
"""

from service.errors import NoModel
from service.models.snapshot import ModelSnapshot


class ModelStore:
    """Holds the served snapshot, and no other: an older one may know users who are forgotten since."""

    def __init__(self, snapshot: ModelSnapshot | None = None) -> None:
        self._current = snapshot
        self.forgotten: set[str] = set()
        """Users of the served model who are answered as if it did not know them; only `forget` and `swap` write it."""

    def __repr__(self) -> str:
        return f"<ModelStore current={self.version} forgotten={len(self.forgotten)}>"

    def current(self) -> ModelSnapshot:
        """Return the served snapshot.

        Raises:
            NoModel: None has been loaded yet.
        """
        snapshot = self._current
        if snapshot is None:
            raise NoModel
        return snapshot

    @property
    def version(self) -> str | None:
        """The served version, or None before the first one."""
        return None if self._current is None else self._current.version

    def swap(self, snapshot: ModelSnapshot) -> None:
        """Serve another snapshot from now on."""
        self._current = snapshot
        # Who is not in this one is forgotten for good, and may come back in a later one.
        self.forgotten = {user_id for user_id in self.forgotten if user_id in snapshot.users.row_of}

    def forget(self, user_id: str) -> None:
        """Serve a user as an unknown one, until a model is swapped in that does not know them."""
        if self._current is not None and user_id in self._current.users.row_of:
            self.forgotten.add(user_id)
