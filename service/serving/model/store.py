"""The served model: the only mutable object on the request path.

Invariant: `swap` is one assignment, so a request that called `current()` once uses one model from its first look-up to
its last byte. An erased user stays in `erased` while the served model still holds them.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from service.catalogue.catalogue import Catalogue
from service.catalogue.served_model import ServedModel
from service.errors import NoModel
from service.models.snapshot import ModelSnapshot

# Within this time all replicas swap in a version that was activated for both roles.
_PREVIOUS_S: Final = 20.0


class ModelStore:
    """Holds the served snapshot, and no older one, which might hold users erased since.

    With `keeps_previous`, as the candidates service has it, the items of the version before are served for a while to
    callers of its embedding space, so that the other service may swap later. No list for a user is made from it.
    """

    def __init__(self, snapshot: ModelSnapshot | None = None, *, keeps_previous: bool = False) -> None:
        self._current = snapshot
        self._keeps_previous = keeps_previous
        self._previous: tuple[ModelSnapshot, Catalogue] | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._served: ServedModel | None = None
        self._catalogue: Catalogue | None = None
        self._swapped: Callable[[], None] = lambda: None
        self.erased: set[str] = set()
        """Users of the served model that are answered as unknown ones; written by `erase_user` and `swap` alone."""

    def __repr__(self) -> str:
        return f"<ModelStore current={self.version} erased={len(self.erased)}>"

    def current(self) -> ModelSnapshot:
        """Return the served snapshot, with rows for items that the model was not trained on.

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
    def served(self) -> ServedModel | None:
        """The served model with its catalogue; None before the first one."""
        if self._served is None and self._current is not None:
            self._served = ServedModel(self._current)
            self._catalogue = self._served.catalogue
        return self._served

    @property
    def model(self) -> ModelSnapshot:
        """The served model as it was published.

        Raises:
            NoModel: No model has been loaded yet.
        """
        served = self.served
        if served is None:
            raise NoModel
        return served.model

    @property
    def catalogue(self) -> Catalogue:
        """The item catalogue of the served snapshot; take both without an await in between.

        Raises:
            NoModel: No model has been loaded yet.
        """
        if self._catalogue is None:
            served = self.served
            if served is None:
                raise NoModel
            return served.catalogue
        return self._catalogue

    def of_space(self, embedding_space: str | None) -> tuple[ModelSnapshot, Catalogue] | None:
        """Return the served snapshot and catalogue of an embedding space, any for None; None if none has it.

        Raises:
            NoModel: No model has been loaded yet.
        """
        snapshot = self.current()
        if embedding_space is None or snapshot.embedding_space == embedding_space:
            return snapshot, self.catalogue
        if self._previous is not None and self._previous[0].embedding_space == embedding_space:
            return self._previous
        return None

    def on_swap(self, call: Callable[[], None]) -> None:
        """Set the function that is called after each swap."""
        self._swapped = call

    def swap(self, model: ModelSnapshot, served: ServedModel | None = None) -> None:
        """Serve another model from now on.

        Args:
            model: The model as published.
            served: The same with its catalogue; None for one to which nothing was written.
        """
        if self._keeps_previous and self._current is not None:
            self._keep_previous(self._current, model)
        self._current = model if served is None else served.snapshot
        self._served = served
        self._catalogue = None if served is None else served.catalogue
        # A user absent from this snapshot is gone, and may return with a later one.
        self.erased = {user_id for user_id in self.erased if user_id in model.users.row_of}
        self._swapped()

    def _keep_previous(self, current: ModelSnapshot, model: ModelSnapshot) -> None:
        if current.version == model.version:
            # New items of the same version.
            return
        self._end_previous()
        if current.embedding_space != model.embedding_space:
            self._previous = current, self.catalogue
            self._ending = asyncio.get_running_loop().call_later(_PREVIOUS_S, self._end_previous)

    def _end_previous(self) -> None:
        self._previous = None
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def replace_catalogue(self, catalogue: Catalogue) -> None:
        """Serve another catalogue of the same snapshot."""
        self._catalogue = catalogue

    def erase_user(self, user_id: str) -> None:
        """Answer for a user as for an unknown one, until a model without them is swapped in."""
        if self._current is not None and user_id in self._current.users.row_of:
            self.erased.add(user_id)
