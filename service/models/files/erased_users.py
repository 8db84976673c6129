"""Users whom no published model may hold: `models/forgotten.json`, a digest and two times for each.

What a user did until the erasure was requested stays erased. What was made until the user was listed may be made of it,
and what is made later is not: a user who came back may be in it.

Invariants: a user is listed before any version is searched, and a publisher reads the list as the only writer, so a
model that was being trained meanwhile does not hold the user. Users held by a version or by training data stay listed;
others are temporary, by `TEMPORARY_DAYS` and `MAX_TEMPORARY`. A digest is the pseudonym of a user's telemetry id, under
a salt in the same file: it hides ids only from a casual reader. The file keeps the name that installations and backups
have.
"""

import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from service.errors import ModelRefused
from service.models.files import published_files
from service.models.snapshot import UNPUBLISHED, ModelSnapshot
from service.models.vocabulary import Vocabulary
from telemetry.ids import rfc3339_ms
from telemetry.live.live_event import unix_ms
from telemetry.pseudonym import Pseudonymiser

FILE: Final = "forgotten.json"
# As long as the archive discards an erased user's late events, and a training that began before may run.
TEMPORARY_DAYS: Final = 7
# 7 MB of the file.
MAX_TEMPORARY: Final = 100_000
_FORMAT: Final = 2
# Format 1 had no temporary users.
_READABLE: Final = (1, _FORMAT)
_SALT_BYTES: Final = 32
_DAY_S: Final = 86_400
_MS_PER_S: Final = 1000
# What was made so shortly after a listing may have been made before it, on a machine whose clock is ahead.
CLOCK_SKEW_S: Final = 60


class ErasedAt(NamedTuple):
    """When a user was erased.

    Attributes:
        listed_s: When the user was listed, in seconds since 1970, rounded down.
        requested_ms: When the erasure was requested, in milliseconds since 1970.
    """

    listed_s: int
    requested_ms: int

    @property
    def requested_s(self) -> int:
        """When the erasure was requested, in seconds since 1970, rounded down."""
        return self.requested_ms // _MS_PER_S

    def is_before(self, made_at: object) -> bool:
        """Whether the user was listed before something was made, RFC 3339, by any machine's clock; False of no time."""
        try:
            return isinstance(made_at, str) and unix_ms(made_at) > (self.listed_s + 1 + CLOCK_SKEW_S) * _MS_PER_S
        except ValueError:
            return False


def user_keys(user_id: str, pseudonyms: Pseudonymiser) -> tuple[str, ...]:
    """Return the ids that a user may have in models and telemetry: models trained on events have pseudonyms."""
    return (user_id, pseudonyms.pseudonym(user_id)) if pseudonyms.active else (user_id,)


def rows_of(users: Vocabulary, names: Collection[str], pseudonyms: Pseudonymiser) -> dict[int, str]:
    """Find users of telemetry in the vocabulary of a model.

    Args:
        users: User ids of callers, or of telemetry where a model was trained on archived events.
        names: User ids of telemetry, as a set.

    Returns:
        By row: the name found there.
    """
    if not pseudonyms.active:
        return {users.row_of[name]: name for name in names if name in users.row_of}
    keys = ((row, key) for row, user_id in enumerate(users.id_of) for key in user_keys(user_id, pseudonyms))
    return {row: key for row, key in keys if key in names}


@dataclass(frozen=True)
class ErasedUsers:
    """The list, as it was read.

    Attributes:
        salt: The key of the digests.
        permanent_s: By digest of users who stay listed: when they were listed, in seconds since 1970.
        temporary_s: The same of the others.
        requested_ms: By digest: when the erasure was requested, in milliseconds since 1970. For those that it does not
            have, as in a file of an older release, that is the end of the second in which they were listed.
    """

    salt: bytes = field(repr=False)
    permanent_s: Mapping[str, int]
    temporary_s: Mapping[str, int] = field(default_factory=dict)
    requested_ms: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, models_dir: Path) -> "ErasedUsers":
        """Read the list; if it is missing, an empty one with a new salt.

        Raises:
            ModelRefused: It cannot be read; treated as empty, it would bring users back.
        """
        path = models_dir / FILE
        try:
            content = json.loads(path.read_bytes())
            if content["format"] not in _READABLE:
                raise ModelRefused(f"{path} is of format {content['format']!r}; this version reads {_FORMAT}.")
            temporary = content["passing"] if content["format"] == _FORMAT else {}
            requested_ms = {str(digest): unix_ms(text) for digest, text in content.get("requested", {}).items()}
            return cls(bytes.fromhex(content["salt"]), _times_s(content["users"]), _times_s(temporary), requested_ms)
        except FileNotFoundError:
            return cls(secrets.token_bytes(_SALT_BYTES), {})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelRefused(f"{path} cannot be read: {error}.") from error

    def write(self, models_dir: Path) -> None:
        """Replace the list on disk; for `published_files.exclusive` use."""
        content = {
            "format": _FORMAT,
            "salt": self.salt.hex(),
            "users": {digest: rfc3339_ms(time_s) for digest, time_s in self.permanent_s.items()},
            "passing": {digest: rfc3339_ms(time_s) for digest, time_s in self.temporary_s.items()},
            # Older releases pass it over.
            "requested": {digest: rfc3339_ms(time_ms / _MS_PER_S) for digest, time_ms in self.requested_ms.items()},
        }
        published_files.replace(models_dir / FILE, json.dumps(content, indent=1).encode() + b"\n")

    def with_erased(
        self,
        names: Collection[str],
        time_s: int,
        max_temporary: int = MAX_TEMPORARY,
        requested_ms: Mapping[str, int] | None = None,
    ) -> "ErasedUsers":
        """Return the list with more user ids of telemetry, or later times; expired temporary ones are left out.

        Args:
            names: The user ids.
            time_s: The time of now.
            max_temporary: How many temporary ones are kept.
            requested_ms: By user id: when the erasure was requested; by default at the time of now.
        """
        digest_of = self.digest()
        added = dict.fromkeys(map(digest_of, names), time_s)
        requests_ms = {digest: time_ms for digest, time_ms in self.requested_ms.items() if digest not in added}
        requests_ms |= {digest_of(name): time_ms for name, time_ms in (requested_ms or {}).items() if name in names}
        permanent_s = {digest: added.pop(digest, before_s) for digest, before_s in self.permanent_s.items()}
        temporary = {**self.temporary_s, **added}
        recent = [item for item in temporary.items() if item[1] > time_s - TEMPORARY_DAYS * _DAY_S]
        recent.sort(key=lambda item: item[1])
        temporary_s = dict(recent[-max_temporary:])
        requests_ms = {
            digest: time_ms for digest, time_ms in requests_ms.items() if digest in permanent_s or digest in temporary_s
        }
        return replace(self, permanent_s=permanent_s, temporary_s=temporary_s, requested_ms=requests_ms)

    def with_permanent(self, names: Collection[str]) -> "ErasedUsers":
        """Return the list with temporary users made permanent; other user ids of telemetry change nothing."""
        kept = set(map(self.digest(), names)) & self.temporary_s.keys()
        kept_s = {digest: time_s for digest, time_s in self.temporary_s.items() if digest in kept}
        temporary_s = {digest: time_s for digest, time_s in self.temporary_s.items() if digest not in kept}
        return replace(self, permanent_s={**self.permanent_s, **kept_s}, temporary_s=temporary_s)

    def times(self) -> dict[str, ErasedAt]:
        """Return by digest when each user was erased."""
        return {
            digest: ErasedAt(time_s, self.requested_ms.get(digest, (time_s + 1) * _MS_PER_S - 1))
            for digest, time_s in (*self.permanent_s.items(), *self.temporary_s.items())
        }

    def times_of(self, names: Collection[str]) -> dict[str, ErasedAt]:
        """Return by user id of telemetry when each was erased; those who are not listed are left out."""
        times, digest_of = self.times(), self.digest()
        return {name: at for name in names if (at := times.get(digest_of(name))) is not None}

    def unlisted(self, requested_ms: Mapping[str, int]) -> set[str]:
        """Return those of some user ids of telemetry that are not listed, or listed for an earlier request.

        Args:
            requested_ms: By user id of telemetry: when the erasure was requested, in milliseconds since 1970.
        """
        times = self.times_of(requested_ms)
        return {
            name for name, time_ms in requested_ms.items() if name not in times or times[name].requested_ms < time_ms
        }

    def since(self, before: "ErasedUsers") -> "ErasedUsers":
        """Return the list of those who are new, or have other times than in an earlier state of the list."""
        if self.salt != before.salt:
            return self
        times, known = self.times(), before.times()

        def changed(times_s: Mapping[str, int]) -> dict[str, int]:
            # The request counts, too: both may be listed within the same second.
            return {digest: time_s for digest, time_s in times_s.items() if known.get(digest) != times[digest]}

        return replace(self, permanent_s=changed(self.permanent_s), temporary_s=changed(self.temporary_s))

    def erased_rows(self, users: Vocabulary, pseudonyms: Pseudonymiser) -> dict[int, ErasedAt]:
        """Find the listed users in a vocabulary, as `rows_of` does.

        Returns:
            By row: when that user was erased.
        """
        times = self.times()
        if not times:
            return {}
        digest_of = self.digest()
        found: dict[int, ErasedAt] = {}
        for row, user_id in enumerate(users.id_of):
            digests = map(digest_of, user_keys(user_id, pseudonyms))
            known = [at for digest in digests if (at := times.get(digest)) is not None]
            if known:
                found[row] = latest(known)
        return found

    def digest(self) -> Callable[[str], str]:
        """Return the function that makes the digest of a user id of telemetry."""
        return Pseudonymiser(self.salt).pseudonym


def latest(times: Collection[ErasedAt]) -> ErasedAt:
    """Return the times of a user who is listed under several ids."""
    return ErasedAt(max(at.listed_s for at in times), max(at.requested_ms for at in times))


def list_erased(models_dir: Path, requested: Mapping[str, str], now_s: float | None = None) -> dict[str, ErasedAt]:
    """List users as erased unless they are listed for the same request: a repetition changes no time.

    Args:
        requested: By user id of telemetry: when the erasure was requested, RFC 3339.
        now_s: The time of now; None for that of the clock, once no other process publishes.

    Returns:
        By user id: when the user was erased. Users of no model may be left out if there are too many.

    Raises:
        ModelRefused: The list cannot be read.
        OSError: It cannot be written.
    """
    models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with published_files.exclusive(models_dir):
        erased = ErasedUsers.read(models_dir)
        requested_ms = {name: unix_ms(text) for name, text in requested.items()}
        if names := erased.unlisted(requested_ms):
            time_s = int(time.time() if now_s is None else now_s)
            erased = erased.with_erased(names, time_s, requested_ms=requested_ms)
            erased.write(models_dir)
    return erased.times_of(requested)


def keep_permanently(models_dir: Path, names: Collection[str]) -> None:
    """Make temporary users permanent, because a model or training data holds them."""
    if names:
        with published_files.exclusive(models_dir):
            before = ErasedUsers.read(models_dir)
            after = before.with_permanent(names)
            if after != before:
                after.write(models_dir)


def without_users(snapshot: ModelSnapshot, rows: Sequence[int]) -> ModelSnapshot:
    """Return a model without some users: their ids, factors, biases, histories and weights as neighbours (pure).

    Popularity stays, because it only counts users, and so do the item factors, which were fitted on all ratings.
    """
    keep = np.ones(len(snapshot.users), dtype=bool)
    keep[list(rows)] = False
    kept_entries = np.repeat(keep, np.diff(snapshot.history.indptr))
    return replace(
        snapshot,
        users=Vocabulary(id_ for id_, kept in zip(snapshot.users.id_of, keep.tolist(), strict=True) if kept),
        user_factors=snapshot.user_factors[keep],
        user_bias=snapshot.user_bias[keep],
        history=snapshot.history[np.flatnonzero(keep)],
        neighbourhood=None if snapshot.neighbourhood is None else snapshot.neighbourhood.of_users(keep),
        history_ranks=None if snapshot.history_ranks is None else snapshot.history_ranks[kept_entries],
        history_times=None if snapshot.history_times is None else snapshot.history_times[kept_entries],
        history_types=None if snapshot.history_types is None else snapshot.history_types[kept_entries],
        user_inputs=None if snapshot.user_inputs is None else snapshot.user_inputs[keep],
        user_attributes=None if snapshot.user_attributes is None else snapshot.user_attributes[keep],
        user_clusters=None if snapshot.user_clusters is None else snapshot.user_clusters.of_kept(keep),
        version=UNPUBLISHED,
    )


def _times_s(users: Mapping[str, str]) -> dict[str, int]:
    return {str(digest): int(datetime.fromisoformat(text).timestamp()) for digest, text in users.items()}
