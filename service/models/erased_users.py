"""Users whom no published model may hold: `models/forgotten.json`, a digest and a time for each.

Invariants:

- A user is on the list before any version is searched for them, and a publisher reads the list as the only
  writer. So whichever comes first, a model that was being trained while its user was forgotten does not hold them.
- Users whom a published version or a training's data held stay on the list. The others are passing: they are there for
  `PASSING_DAYS`, and the newest `MOST_PASSING` of them, so that ids of no user do not make the list grow for ever.

A digest is the pseudonym of what telemetry calls the user, under a salt that stands in the same file: it keeps ids from
being read in passing, and from nobody who can guess one.
"""

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from service.errors import ModelRefused
from service.models import published_files
from service.models.snapshot import UNPUBLISHED, ModelSnapshot
from service.models.vocabulary import Vocabulary
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser

FILE: Final = "forgotten.json"
# For as long as the archive refuses an erased user's late events, and trainings that began before may run.
PASSING_DAYS: Final = 7
# 7 MB of the file.
MOST_PASSING: Final = 100_000
_FORMAT: Final = 2
# The first format had no passing users.
_READ: Final = (1, _FORMAT)
_SALT_BYTES: Final = 32
_DAY_S: Final = 86_400


@dataclass(frozen=True)
class ErasedUsers:
    """The list, as it was read.

    Attributes:
        salt: What the digests are made with.
        known_s: By digest: when a user who stays on the list was forgotten, in seconds since 1970.
        passing_s: The same of users whom no model and no training's data held so far.
    """

    salt: bytes = field(repr=False)
    known_s: Mapping[str, int]
    passing_s: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, models_dir: Path) -> "ErasedUsers":
        """Read the list; an empty one, with a salt of its own, where there is none.

        Raises:
            ModelRefused: It is there and cannot be read; taken for empty, it would bring users back.
        """
        path = models_dir / FILE
        try:
            content = json.loads(path.read_bytes())
            if content["format"] not in _READ:
                raise ModelRefused(f"{path} is of format {content['format']!r}; this version reads {_FORMAT}")
            passing = content["passing"] if content["format"] == _FORMAT else {}
            return cls(bytes.fromhex(content["salt"]), _times_s(content["users"]), _times_s(passing))
        except FileNotFoundError:
            return cls(secrets.token_bytes(_SALT_BYTES), {})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelRefused(f"{path} cannot be read: {error}") from error

    def write(self, models_dir: Path) -> None:
        """Replace the list on disk; for `files.exclusive` use."""
        content = {
            "format": _FORMAT,
            "salt": self.salt.hex(),
            "users": {digest: rfc3339_ms(time_s) for digest, time_s in self.known_s.items()},
            "passing": {digest: rfc3339_ms(time_s) for digest, time_s in self.passing_s.items()},
        }
        published_files.replace(models_dir / FILE, json.dumps(content, indent=1).encode() + b"\n")

    def adding(self, telemetry_ids: Collection[str], time_s: int) -> "ErasedUsers":
        """Return the list with more users, or users' later times; passing ones whose time is over are left out.

        Args:
            telemetry_ids: The users, as telemetry knows them.
            time_s: When they were forgotten, in seconds since 1970.
        """
        added = dict.fromkeys(map(self._digester(), telemetry_ids), time_s)
        known_s = {digest: added.pop(digest, before_s) for digest, before_s in self.known_s.items()}
        passing = {**self.passing_s, **added}
        recent = [item for item in passing.items() if item[1] > time_s - PASSING_DAYS * _DAY_S]
        recent.sort(key=lambda item: item[1])
        return replace(self, known_s=known_s, passing_s=dict(recent[-MOST_PASSING:]))

    def keeping(self, telemetry_ids: Collection[str]) -> "ErasedUsers":
        """Return the list with passing users as ones who stay, because a model or a training's data holds them.

        Args:
            telemetry_ids: The users, as telemetry knows them; others than passing ones change nothing.
        """
        wanted = set(map(self._digester(), telemetry_ids)) & self.passing_s.keys()
        kept_s = {digest: self.passing_s[digest] for digest in self.passing_s if digest in wanted}
        passing_s = {digest: time_s for digest, time_s in self.passing_s.items() if digest not in wanted}
        return replace(self, known_s={**self.known_s, **kept_s}, passing_s=passing_s)

    def rows(self, users: Vocabulary, pseudonyms: Pseudonymiser) -> dict[int, int]:
        """Find the listed users of a vocabulary.

        Args:
            users: User ids as callers know them, or as telemetry does where a model learns from archived events.
            pseudonyms: What telemetry calls them.

        Returns:
            By row: when that user was forgotten, in seconds since 1970.
        """
        times_s = {**self.known_s, **self.passing_s}
        if not times_s:
            return {}
        digest_of = self._digester()
        found: dict[int, int] = {}
        for row, id_ in enumerate(users.id_of):
            names = (pseudonyms.pseudonym(id_), id_) if pseudonyms.active else (id_,)
            known = [time_s for name in names if (time_s := times_s.get(digest_of(name))) is not None]
            if known:
                found[row] = max(known)
        return found

    def _digester(self) -> Callable[[str], str]:
        return Pseudonymiser(self.salt).pseudonym


def keep(models_dir: Path, users: Vocabulary, rows: Collection[int], pseudonyms: Pseudonymiser) -> None:
    """Let listed users stay on the list whom the data of a training holds: the next training reads it, too.

    Args:
        models_dir: The directory of all versions.
        users: The user ids of the data.
        rows: Those who are on the list, see `ErasedUsers.rows`.
        pseudonyms: What telemetry calls them.

    Raises:
        ModelRefused: The list cannot be read.
        OSError: It cannot be written.
    """
    ids = [users.id_of[row] for row in rows]
    names = {*ids, *map(pseudonyms.pseudonym, ids)}
    with published_files.exclusive(models_dir):
        before = ErasedUsers.read(models_dir)
        after = before.keeping(names)
        if after != before:
            after.write(models_dir)


def without_users(snapshot: ModelSnapshot, rows: Sequence[int]) -> ModelSnapshot:
    """Return a model without some users: their ids, factors, biases, histories and what they said as neighbours (pure).

    Popularity stays: it counts how many, not who. So do the item factors, which were fitted on everybody's ratings.

    Args:
        snapshot: The model.
        rows: User rows to leave out.
    """
    keep = np.ones(len(snapshot.users), dtype=bool)
    keep[list(rows)] = False
    return replace(
        snapshot,
        users=Vocabulary(id_ for id_, kept in zip(snapshot.users.id_of, keep.tolist(), strict=True) if kept),
        user_factors=snapshot.user_factors[keep],
        user_bias=snapshot.user_bias[keep],
        history=snapshot.history[np.flatnonzero(keep)],
        neighbourhood=None if snapshot.neighbourhood is None else snapshot.neighbourhood.of_users(keep),
        version=UNPUBLISHED,
    )


def _times_s(users: Mapping[str, str]) -> dict[str, int]:
    return {str(digest): int(datetime.fromisoformat(text).timestamp()) for digest, text in users.items()}
