"""Removes a user from the published models: the consumer's part of `DELETE /v1/users/{user_id}` outside of the archive.

Invariant: when `forget` returns, no version under `models/` holds the user, and none that is published later will, but
for what the user did since. It may be killed anywhere and called again, and leaves all other users as they were.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service import publication
from service.errors import ModelError, ModelMissing, RunError
from service.models import artefact, files
from service.models.forgotten import Forgotten, without_users
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from telemetry.pseudonym import Pseudonymiser

_WHY: Final = "users were forgotten"


class ModelForgetter:
    """Forgets users in a directory of models.

    Args:
        models_dir: the directory of all versions; made if it is not there.
        pseudonyms: what telemetry calls the users of the models.
    """

    name = "models"

    def __init__(self, models_dir: Path, pseudonyms: Pseudonymiser) -> None:
        self._models_dir = models_dir
        self._pseudonyms = pseudonyms

    async def forget(self, user_id: str) -> int:
        """Remove a user from every version, off the event loop.

        Args:
            user_id: the user, as telemetry knows them.

        Returns:
            How many versions were published anew without the user.

        Raises:
            ModelError: the list of forgotten users cannot be read.
            RunError: a version that holds the user cannot be published anew, or the directory cannot be written.
        """
        return await asyncio.to_thread(self._forget, user_id)

    def _forget(self, user_id: str) -> int:
        rewritten = 0
        refused: list[str] = []
        try:
            self._models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with files.exclusive(self._models_dir):
                Forgotten.read(self._models_dir).adding(user_id, int(time.time())).write(self._models_dir)
            # From the end, those first whose copies a killed attempt left: a copy of such a copy would be one too many.
            copied = artefact.copies(self._models_dir)
            waiting = sorted(artefact.versions(self._models_dir), key=copied.__contains__)
            while waiting:
                version = waiting.pop()
                try:
                    if self._rows(artefact.load_users(self._models_dir / version), user_id):
                        # Its copy too, which may be one that a killed attempt left and was for another user.
                        waiting.append(publication.supersede(self._models_dir, version, self._without(user_id), _WHY))
                        rewritten += 1
                except ModelMissing:
                    # Somebody else removed it.
                    continue
                except ModelError as error:
                    refused.append(str(error))
        except OSError as error:
            raise RunError(f"a user cannot be forgotten in {self._models_dir}: {error.strerror or error}") from error
        if refused:
            # Never deleted for being damaged: what is left of it may be dear to somebody, who has to decide.
            raise RunError(f"these models may hold a forgotten user and must be removed: {'; '.join(refused)}")
        return rewritten

    def _rows(self, users: Vocabulary, user_id: str) -> list[int]:
        if not self._pseudonyms.active:
            row = users.row_of.get(user_id)
            return [] if row is None else [row]
        # A model trained on archived events knows its users by their pseudonyms.
        return [row for row, id_ in enumerate(users.id_of) if user_id in (id_, self._pseudonyms.of(id_))]

    def _without(self, user_id: str) -> Callable[[ModelSnapshot], ModelSnapshot]:
        return lambda snapshot: without_users(snapshot, self._rows(snapshot.users, user_id))
