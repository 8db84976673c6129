"""Erases users from the published models: the part of `DELETE /v1/users/{user_id}` outside of the archive.

Invariant: when `erase` returns, no version under `models/` holds the users, and none that is published later will,
except by later interactions. It may be killed anywhere and called again, and keeps all other users, and in versions
published since they were listed those who came back. A version is read and published anew once, for however many users,
and only if it holds one of them.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from service.errors import ModelError, ModelMissing, RunError
from service.models.files import artefact, versions
from service.models.files.erased_users import ErasedAt, keep_permanently, list_erased, rows_of, without_users
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot
from service.security import security_log
from telemetry.daemon_thread import run_in_daemon_thread
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser

_WHY: Final = "users were erased"


class ModelUserEraser:
    """Erases users from a directory of models.

    Args:
        pseudonyms: Maps user ids of the models to those of telemetry.
        security_dir: The directory of the security log; None for an installation without one.
        checkpoints_dir: The checkpoints of trainings, which hold rows of users without their ids; None for none.
    """

    name = "models"

    def __init__(
        self,
        models_dir: Path,
        pseudonyms: Pseudonymiser,
        security_dir: Path | None = None,
        checkpoints_dir: Path | None = None,
    ) -> None:
        self._models_dir = models_dir
        self._security_dir = security_dir
        self._pseudonyms = pseudonyms
        self._checkpoints_dir = checkpoints_dir

    async def erase(self, requested: Mapping[str, str] | Collection[str]) -> Mapping[str, int]:
        """Remove users, by their ids in telemetry, from every version, off the event loop.

        Args:
            requested: By user: when the last erasure was requested, RFC 3339; of users alone, that is now.

        Returns:
            By user: how many versions were published anew without them.

        Raises:
            ModelError: The list of erased users cannot be read.
            RunError: A version that holds one cannot be published anew, or the directory cannot be written.
        """
        # A hanging model store must not keep the consumer from ending; the next call completes an interrupted one.
        return await run_in_daemon_thread(lambda: self.erase_now(requested), "model-eraser")

    def erase_now(self, requested: Mapping[str, str] | Collection[str]) -> Mapping[str, int]:
        """Remove users as `erase` does, and block."""
        if not isinstance(requested, Mapping):
            requested = dict.fromkeys(requested, rfc3339_ms(time.time()))
        names = frozenset(requested)
        rewritten: Counter[str] = Counter()
        unreadable: list[str] = []
        try:
            erased = list_erased(self._models_dir, requested)
            # The last one is taken first. Versions with a copy, which a killed attempt has left, must be superseded by
            # it before the copy is itself superseded.
            copied = publication.copies(self._models_dir)
            waiting = sorted(versions.published(self._models_dir), key=copied.__contains__)
            # Before the first version is replaced: afterwards no version shows which users it held.
            keep_permanently(self._models_dir, {name for version in waiting for name in self._held_by(version, names)})
            while waiting:
                version = waiting.pop()
                try:
                    wanted = self._erased_from(version, names, erased)
                    users = artefact.load_users(self._models_dir / version)
                    if found := rows_of(users, wanted, self._pseudonyms):
                        # The copy is searched too: a killed attempt may have made it for other users.
                        waiting.append(self._supersede(version, wanted))
                        rewritten.update(set(found.values()))
                except ModelMissing:
                    # Another process removed it.
                    continue
                except ModelError as error:
                    unreadable.append(str(error))
            if self._checkpoints_dir is not None:
                # No training goes on from them: its data is another without the users. The pattern also finds files
                # that are being written, or were when their process was killed.
                for checkpoint in self._checkpoints_dir.glob("*.checkpoint*"):
                    checkpoint.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"Users cannot be erased from {self._models_dir}: {error.strerror or error}.") from error
        if unreadable:
            # A damaged version is never deleted here: its owner decides about the rest of its content.
            raise RunError(f"These models may hold an erased user and must be removed: {' '.join(unreadable)}")
        return rewritten

    def _erased_from(self, version: str, names: frozenset[str], erased: Mapping[str, ErasedAt]) -> frozenset[str]:
        """Return who must not be in a version: of one published later than the listing, a user may have come back.

        A publisher reads the list, and a copy has the time of its origin.
        """
        created = artefact.read_manifest(self._models_dir / version).get("created")
        return frozenset(name for name in names if name not in erased or not erased[name].is_before(created))

    def _held_by(self, version: str, names: frozenset[str]) -> Iterator[str]:
        """Yield the users that a version holds; an unreadable version is reported when it is to be published anew."""
        try:
            yield from rows_of(artefact.load_users(self._models_dir / version), names, self._pseudonyms).values()
        except ModelError:
            return

    def _supersede(self, version: str, names: frozenset[str]) -> str:
        """Publish a version anew without some users; returns the new version."""

        def without(snapshot: ModelSnapshot) -> ModelSnapshot:
            return without_users(snapshot, sorted(rows_of(snapshot.users, names, self._pseudonyms)))

        return publication.supersede(self._models_dir, version, without, _WHY, self._log_activation)

    def _log_activation(self, copy: str) -> None:
        if self._security_dir is not None:
            security_log.append(
                self._security_dir, [security_log.new_entry("activate", by="consumer", key=None, model=copy, why=_WHY)]
            )
