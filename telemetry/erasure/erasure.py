"""Forgetting a user: whose lines these are, who else has to forget, and the receipt that is left.

Invariants:

- A line belongs to a user if the `user_id` in it is theirs, and is erased if it was received no later than the
  erase was requested. What comes after is archived: the user may come back.
- What remains of a user is a digest, keyed with the archive's own salt, so that a receipt can be found by who
  knows the id and tells nothing to who does not.
"""

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import orjson

from telemetry.catalogue.catalogue_file import ask
from telemetry.catalogue.commit import ErasureRequest
from telemetry.errors import ArchiveError
from telemetry.events import Record, System

DIGEST_MARK: Final = "digest:"


class UserEraser(Protocol):
    """Something besides the archive that holds users; what it raises is noted, and it is asked again."""

    @property
    def name(self) -> str:
        """What to call it in notes."""

    async def erase(self, user_ids: Collection[str]) -> Mapping[str, int]:
        """Remove users for good, all in one go; may be asked several times.

        Args:
            user_ids: Each user once.

        Returns:
            By user: from how many models it was removed; a user that is not in it, from none.
        """


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of an erase; `done_at` is None while it is under way.

    `events`, `files` and `models` say how many lines were erased from how many files, and from how many
    published models the user was removed.
    """

    erase_id: str
    user_digest: str
    requested_at: str
    done_at: str | None
    events: int
    files: int
    models: int


class LateEventFilter:
    """Whose events are not archived any more.

    Args:
        salt: The archive's key for digests, hexadecimal.
        requested: By the digests of those whom it is about: when the last erase was requested.
    """

    def __init__(self, salt: str, requested: Mapping[str, str]) -> None:
        self._key = bytes.fromhex(salt)
        self._requested = dict(requested)

    def __bool__(self) -> bool:
        return bool(self._requested)

    def digest(self, user_id: str) -> str:
        """Compute what stands for a user.

        Args:
            user_id: Who.

        Returns:
            HMAC-SHA-256 (RFC 2104) of the id with the salt, hexadecimal.
        """
        return hmac.digest(self._key, user_id.encode(), "sha256").hex()

    def is_late(self, record: Record) -> bool:
        """Tell whether an event came too late to be archived.

        Args:
            record: Any event.

        Returns:
            Whether its user was forgotten after it was received.
        """
        event = record.event
        if isinstance(event, System) or event.user_id is None:
            return False
        requested_at = self._requested.get(self.digest(event.user_id))
        return requested_at is not None and event.received_at <= requested_at

    def redact(self, record: Record, line: bytes) -> tuple[Record, bytes, ErasureRequest]:
        """Take the user's id out of an erase event.

        Args:
            record: The event; its `user_id` is not None.
            line: Its line.

        Returns:
            Both as they may be archived, and the order to forget the user.
        """
        fields = orjson.loads(line)
        digest = self.digest(fields["user_id"])
        erasure = ErasureRequest(fields["event_id"], fields["user_id"], digest, fields["received_at"])
        fields["user_id"] = f"{DIGEST_MARK}{digest}"
        hidden = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        event = record.event
        if isinstance(event, System):
            record = record._replace(event=replace(event, user_id=fields["user_id"]))
        return record, hidden, erasure


def is_erase(record: Record) -> bool:
    """Tell whether an event asks to forget somebody."""
    event = record.event
    return isinstance(event, System) and event.kind == "erase" and event.user_id is not None


def digest(root: Path, user_id: str) -> str:
    """Compute what stands for a user in the receipts of an archive.

    Args:
        root: The archive's directory.
        user_id: Who; with pseudonyms, the pseudonym.

    Returns:
        The digest, hexadecimal.

    Raises:
        ArchiveError: The catalogue cannot be read, or is not there yet.
    """
    rows = ask(root, "SELECT value FROM settings WHERE name = 'salt'", since=2)
    if not rows:
        raise ArchiveError(f"the archive in {root} has no catalogue yet")
    return LateEventFilter(rows[0][0], {}).digest(user_id)


def receipts(root: Path) -> list[Receipt]:
    """Read what was forgotten.

    Args:
        root: The archive's directory.

    Returns:
        Every receipt, the oldest first; empty for an archive without a commit.

    Raises:
        ArchiveError: The catalogue cannot be read.
    """
    rows = ask(
        root,
        "SELECT erase_id, user_digest, requested_at, done_at, events, files, models FROM erasures"
        " ORDER BY requested_at, erase_id",
        since=2,
    )
    return [Receipt(*row) for row in rows]
