"""Removes a user from the published models: the consumer's part of `DELETE /v1/users/{user_id}` outside of the archive.

Invariant: when `forget` returns, no version under `models/` holds the users, and none that is published later will, but
for what they did since. It may be killed anywhere and called again, and leaves all other users as they were. A version
is read and published anew once, for however many users; none is written for users whom no version holds.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.errors import ModelError, ModelMissing, RunError
from service.models import artefact, publication, published_files, versions
from service.models.erased_users import ErasedUsers, without_users
from service.models.snapshot import ModelSnapshot
from service.models.vocabulary import Vocabulary
from service.security import security_log
from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.pseudonym import Pseudonymiser

_WHY: Final = "users were erased"


class ModelUserEraser:
    """Forgets users in a directory of models.

    Args:
        models_dir: The directory of all versions; made if it is not there.
        pseudonyms: What telemetry calls the users of the models.
        security_dir: Where the security log is; None for an installation without one.
    """

    name = "models"

    def __init__(self, models_dir: Path, pseudonyms: Pseudonymiser, security_dir: Path | None = None) -> None:
        self._models_dir = models_dir
        self._security_dir = security_dir
        self._pseudonyms = pseudonyms

    async def erase(self, user_ids: Collection[str]) -> Mapping[str, int]:
        """Remove users from every version, off the event loop.

        Args:
            user_ids: The users, as telemetry knows them.

        Returns:
            By user: how many versions were published anew without them.

        Raises:
            ModelError: The list of forgotten users cannot be read.
            RunError: A version that holds one cannot be published anew, or the directory cannot be written.
        """
        # A model store that hangs must not keep the consumer from ending; what is cut short goes on when called again.
        return await run_in_daemon_thread(lambda: self._erase(user_ids), "model-eraser")

    def _erase(self, user_ids: Collection[str]) -> Mapping[str, int]:
        wanted = frozenset(user_ids)
        rewritten: Counter[str] = Counter()
        refused: list[str] = []
        try:
            self._models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with published_files.exclusive(self._models_dir):
                ErasedUsers.read(self._models_dir).adding(wanted, int(time.time())).write(self._models_dir)
            # From the end, those first whose copies a killed attempt left: a copy of such a copy would be one too many.
            copied = publication.copies(self._models_dir)
            waiting = sorted(versions.published(self._models_dir), key=copied.__contains__)
            self._keep_on_the_list(waiting, wanted)
            while waiting:
                version = waiting.pop()
                try:
                    found = self._found(artefact.load_users(self._models_dir / version), wanted)
                    if found:
                        # Its copy too, which may be one that a killed attempt left and was for other users.
                        copy = publication.supersede(
                            self._models_dir, version, self._without(wanted), _WHY, self._enter
                        )
                        waiting.append(copy)
                        rewritten.update(set(found.values()))
                except ModelMissing:
                    # Somebody else removed it.
                    continue
                except ModelError as error:
                    refused.append(str(error))
        except OSError as error:
            raise RunError(f"users cannot be forgotten in {self._models_dir}: {error.strerror or error}") from error
        if refused:
            # Never deleted for being damaged: what is left of it may be dear to somebody, who has to decide.
            raise RunError(f"these models may hold a forgotten user and must be removed: {'; '.join(refused)}")
        return rewritten

    def _enter(self, copy: str) -> None:
        if self._security_dir is not None:
            security_log.append(
                self._security_dir, [security_log.new_entry("activate", by="consumer", key=None, model=copy, why=_WHY)]
            )

    def _keep_on_the_list(self, versions: Collection[str], wanted: frozenset[str]) -> None:
        """Write down for good whom a version holds, before the first one that shows it is gone."""
        held: set[str] = set()
        for version in versions:
            # What cannot be read is told when it is to be published anew.
            with suppress(ModelError):
                held.update(self._found(artefact.load_users(self._models_dir / version), wanted).values())
        if held:
            with published_files.exclusive(self._models_dir):
                ErasedUsers.read(self._models_dir).keeping(held).write(self._models_dir)

    def _found(self, users: Vocabulary, wanted: frozenset[str]) -> dict[int, str]:
        """Return which of the wanted users are in a vocabulary, by row."""
        if not self._pseudonyms.active:
            return {users.row_of[user_id]: user_id for user_id in wanted if user_id in users.row_of}
        # A model trained on archived events knows its users by their pseudonyms.
        names = ((row, name) for row, id_ in enumerate(users.id_of) for name in (id_, self._pseudonyms.pseudonym(id_)))
        return {row: name for row, name in names if name in wanted}

    def _without(self, wanted: frozenset[str]) -> Callable[[ModelSnapshot], ModelSnapshot]:
        return lambda snapshot: without_users(snapshot, sorted(self._found(snapshot.users, wanted)))
