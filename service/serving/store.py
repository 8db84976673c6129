"""The served model: the only mutable object on the request path.

Invariant: `swap` is one assignment, so a request that called `current()` once uses one model from its first look-up to
its last byte. An erased user stays in `erased` while the served model still holds them.
"""

from service.catalogue.catalogue import Catalogue, of_model
from service.errors import NoModel
from service.models.snapshot import ModelSnapshot


class ModelStore:
    """Holds the served snapshot, and no older one, which might hold users erased since."""

    def __init__(self, snapshot: ModelSnapshot | None = None) -> None:
        self._current = snapshot
        self._catalogue: Catalogue | None = None
        self.erased: set[str] = set()
        """Users of the served model that are answered as unknown ones; written by `erase_user` and `swap` alone."""

    def __repr__(self) -> str:
        return f"<ModelStore current={self.version} erased={len(self.erased)}>"

    def current(self) -> ModelSnapshot:
        """Return the served snapshot.

        Raises:
            NoModel: No model has been loaded yet.
        """
        snapshot = self._current
        if snapshot is None:
            raise NoModel
        return snapshot

    @property
    def version(self) -> str | None:
        """The served version, or None before the first one."""
        return None if self._current is None else self._current.version

    @property
    def catalogue(self) -> Catalogue:
        """The item catalogue of the served snapshot; take both without an await in between.

        Raises:
            NoModel: No model has been loaded yet.
        """
        if self._catalogue is None:
            snapshot = self.current()
            self._catalogue = of_model(snapshot.items, snapshot.item_records)
        return self._catalogue

    def swap(self, snapshot: ModelSnapshot, catalogue: Catalogue | None = None) -> None:
        """Serve another snapshot from now on, with its catalogue; None for the one that it was published with."""
        self._current, self._catalogue = snapshot, catalogue
        # A user absent from this snapshot is gone, and may return with a later one.
        self.erased = {user_id for user_id in self.erased if user_id in snapshot.users.row_of}

    def erase_user(self, user_id: str) -> None:
        """Answer for a user as for an unknown one, until a model without them is swapped in."""
        if self._current is not None and user_id in self._current.users.row_of:
            self.erased.add(user_id)
