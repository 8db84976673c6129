"""The only mutable object on the request path: which model is being served.

Invariant: `swap` is one assignment, so a request that took `current()` once sees one model from its first look-up to
its last byte, whatever is swapped meanwhile.
"""

from __future__ import annotations

from service.errors import Unavailable
from service.models.snapshot import ModelSnapshot


class ModelStore:
    """Holds the served snapshot and the one before it."""

    def __init__(self, snapshot: ModelSnapshot | None = None) -> None:
        self._current = snapshot
        self.previous: ModelSnapshot | None = None

    def __repr__(self) -> str:
        current, previous = (getattr(s, "version", None) for s in (self._current, self.previous))
        return f"<ModelStore current={current} previous={previous}>"

    def current(self) -> ModelSnapshot:
        """Return the served snapshot.

        Raises:
            Unavailable: none has been loaded yet.
        """
        snapshot = self._current
        if snapshot is None:
            raise Unavailable("No model is loaded yet.", retry_after_s=1)
        return snapshot

    @property
    def version(self) -> str | None:
        """The served version, or None before the first one."""
        return None if self._current is None else self._current.version

    def swap(self, snapshot: ModelSnapshot) -> None:
        """Serve another snapshot from now on."""
        self.previous = self._current
        self._current = snapshot
