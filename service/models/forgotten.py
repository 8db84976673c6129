"""Users whom no published model may hold: `models/forgotten.json`, a digest and a time for each.

Invariant: a user is on the list before any version is searched for them, and whoever publishes reads the list as the
only writer. So whichever comes first, a model that was being trained while its user was forgotten does not hold them.

A digest is the pseudonym of what telemetry calls the user, under a salt that stands in the same file: it keeps ids from
being read in passing, and from nobody who can guess one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from service.errors import ModelRefused
from service.models import files
from service.models.snapshot import UNPUBLISHED, ModelSnapshot
from service.models.vocabulary import Vocabulary
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser

FILE: Final = "forgotten.json"
_FORMAT: Final = 1
_SALT_BYTES: Final = 32


@dataclass(frozen=True)
class Forgotten:
    """The list, as it was read.

    Attributes:
        salt: what the digests are made with.
        times_s: by digest: when the user was forgotten, in seconds since 1970.
    """

    salt: bytes = field(repr=False)
    times_s: Mapping[str, int]

    @classmethod
    def read(cls, models_dir: Path) -> Forgotten:
        """Read the list; an empty one, with a salt of its own, where there is none.

        Raises:
            ModelRefused: it is there and cannot be read; taken for empty, it would bring users back.
        """
        path = models_dir / FILE
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != _FORMAT:
                raise ModelRefused(f"{path} is of format {content['format']!r}; this version reads {_FORMAT}")
            times_s = {str(digest): _unix_s(text) for digest, text in content["users"].items()}
            return cls(bytes.fromhex(content["salt"]), times_s)
        except FileNotFoundError:
            return cls(secrets.token_bytes(_SALT_BYTES), {})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelRefused(f"{path} cannot be read: {error}") from error

    def write(self, models_dir: Path) -> None:
        """Replace the list on disk; for `files.exclusive` use."""
        content = {
            "format": _FORMAT,
            "salt": self.salt.hex(),
            "users": {digest: rfc3339_ms(time_s) for digest, time_s in self.times_s.items()},
        }
        files.replace(models_dir / FILE, json.dumps(content, indent=1).encode() + b"\n")

    def adding(self, telemetry_id: str, time_s: int) -> Forgotten:
        """Return the list with one more user, or a user's later time.

        Args:
            telemetry_id: the user, as telemetry knows them.
            time_s: when they were forgotten, in seconds since 1970.
        """
        return replace(self, times_s={**self.times_s, self._digest(telemetry_id): time_s})

    def rows(self, users: Vocabulary, pseudonyms: Pseudonymiser) -> dict[int, int]:
        """Find the listed users of a vocabulary.

        Args:
            users: user ids as callers know them, or as telemetry does where a model learns from archived events.
            pseudonyms: what telemetry calls them.

        Returns:
            By row: when that user was forgotten, in seconds since 1970.
        """
        if not self.times_s:
            return {}
        digest_of = Pseudonymiser(self.salt).of
        found: dict[int, int] = {}
        for row, id_ in enumerate(users.id_of):
            names = (pseudonyms.of(id_), id_) if pseudonyms.active else (id_,)
            times_s = [time_s for name in names if (time_s := self.times_s.get(digest_of(name))) is not None]
            if times_s:
                found[row] = max(times_s)
        return found

    def _digest(self, telemetry_id: str) -> str:
        return Pseudonymiser(self.salt).of(telemetry_id)


def without_users(snapshot: ModelSnapshot, rows: Sequence[int]) -> ModelSnapshot:
    """Return a model without some users: their ids, factors, biases, histories and what they said as neighbours (pure).

    Popularity stays: it counts how many, not who. So do the item factors, which were fitted on everybody's ratings.

    Args:
        snapshot: the model.
        rows: user rows to leave out.
    """
    keep = np.ones(len(snapshot.users), dtype=bool)
    keep[list(rows)] = False
    return replace(
        snapshot,
        users=Vocabulary(id_ for id_, kept in zip(snapshot.users.id_of, keep.tolist(), strict=True) if kept),
        user_factors=snapshot.user_factors[keep],
        user_bias=snapshot.user_bias[keep],
        history=snapshot.history[np.flatnonzero(keep)],
        neighbourhood=None if snapshot.neighbourhood is None else snapshot.neighbourhood.without_users(keep),
        version=UNPUBLISHED,
    )


def _unix_s(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
