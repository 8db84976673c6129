"""One check of the active version of a role: a model that is not the served one is loaded and warmed up.

A check blocks while it reads files, so that it runs in a thread.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from service.catalogue.served_model import ServedModel
from service.errors import ModelError, ModelRefused
from service.lists.filters.masks import FilterMasks
from service.lists.list_request import ListRequest
from service.lists.pipeline import ListModel, make_list
from service.models.files import active_model, artefact
from service.models.ranking import personal_lists, scoring
from service.models.roles import Role
from service.models.snapshot import ModelSnapshot

_WARM_USERS: Final = 32

FileVersion = tuple[int, int]
"""Inode and time of change of ACTIVE; every activation renames a new file into place."""


class ModelCheck:
    """One check, in a thread of its own that may be abandoned at any time.

    ACTIVE stands for the file that names the active version of the role.

    Args:
        models_dir: The model store.
        serving: The served version; None before the first one.
        handled: ACTIVE as it was last handled, which is not handled again; None to handle it in any case.
        build: Adds the item catalogue to a loaded model.
        role: The role of the replica.

    Attributes:
        found: ACTIVE as it is now, once it has been read.
        changed: Whether ACTIVE is to be handled.
        subject: What is being read, for messages.
        progressed_s: When the file system last answered, in monotonic seconds.
    """

    def __init__(
        self,
        models_dir: Path,
        serving: str | None,
        handled: FileVersion | None,
        build: Callable[[ModelSnapshot], ServedModel] = ServedModel,
        role: Role = "all",
    ) -> None:
        self._build = build
        self._role: Role = role
        self._models_dir = models_dir
        self._serving = serving
        self._handled = handled
        self._abandoned = threading.Event()
        self.found = handled
        self.changed = False
        self.subject = f"The model store {models_dir}"
        self.progressed_s = time.monotonic()

    def abandon(self) -> None:
        """End the check as soon as its thread returns from the file system."""
        self._abandoned.set()

    def run(self) -> ServedModel | None:
        """Return the model to serve from now on, with its item catalogue, or None to keep the served one.

        Raises:
            ModelError: The version named by ACTIVE cannot be served.
            OSError: ACTIVE cannot be read.
        """
        status = active_model.path_of(self._models_dir, self._role).lstat()
        self.found = status.st_ino, status.st_mtime_ns
        self._progress()
        if self.found == self._handled:
            return None
        self.changed = True
        version = active_model.version(self._models_dir, self._role)
        if version is None or version == self._serving:
            return None
        self.subject = version
        try:
            snapshot = artefact.load(self._models_dir / version, self._progress)
            served = self._build(snapshot)
            warm_up(served)
        except ModelError:
            raise
        except Exception as error:
            # Any error of a damaged model must leave the served one in place.
            raise ModelRefused(f"{version}: {error!r}.") from error
        return served

    def _progress(self) -> None:
        self.progressed_s = time.monotonic()
        if self._abandoned.is_set():
            raise ModelRefused(f"{self.subject} took too long to read.")


def warm_up(served: ServedModel) -> None:
    """Compute some lists as requests do: fills lazy attributes and touches the mapped pages.

    Raises:
        ModelRefused: A list is invalid.
    """
    snapshot = served.snapshot
    n_users = len(snapshot.users)
    for user_row in np.linspace(0, n_users - 1, min(_WARM_USERS, n_users), dtype=int).tolist():
        (ranking,) = personal_lists.personal(snapshot, [scoring.TopNRequest(user_row, 10)])
        if not np.isfinite(ranking.scores).all() or np.isin(ranking.rows, snapshot.seen_rows(user_row)).any():
            raise ModelRefused(
                f"{snapshot.version}: user row {user_row} gets scores that are not finite, or seen items."
            )
    scoring.popular(snapshot, 10)
    if len(snapshot.items):
        request = ListRequest(10, similar_to=snapshot.items.id_of[0])
        make_list(ListModel(snapshot, served.catalogue, FilterMasks()), request, None, time.time())
