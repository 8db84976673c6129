"""Erasing a user: which lines are erased, which late events are discarded, and the receipt that remains.

Invariants:

- A line is erased if its `user_id` is the user's and it was received no later than the erasure was requested
  (`falls_under`). Later events are archived: the user may come back.
- A digest keyed with the archive's salt is all that remains of a user. Only a caller who knows the id can find the
  receipt.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import orjson

from telemetry.catalogue.catalogue_file import query_catalogue
from telemetry.catalogue.commit import ErasureRequest
from telemetry.errors import ArchiveError
from telemetry.events import Feedback, Record, Served, System

DIGEST_MARK: Final = "digest:"


class UserEraser(Protocol):
    """Erases users from a place other than the archive; an error is reported, and the call repeated."""

    @property
    def name(self) -> str:
        """Its name in notes."""

    async def erase(self, requested: Mapping[str, str], /) -> Mapping[str, int]:
        """Erase users for good, all in one pass; may be called again for the same users.

        Args:
            requested: By user: when the last erasure was requested, RFC 3339.

        Returns:
            By user: from how many models it was removed; users in no model may be left out.
        """


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """The state of an erasure: lines erased, files they were in, published models rewritten.

    `done_at` is None while it is under way.
    """

    erase_id: str
    user_digest: str
    requested_at: str
    done_at: str | None
    events: int
    files: int
    models: int


def falls_under(received_at: str, requested_at: str) -> bool:
    """Decide whether an event of an erased user falls under the erasure; both times are RFC 3339 in UTC."""
    return received_at <= requested_at


def digest_of(salt: str, user_id: str) -> str:
    """Return the HMAC-SHA-256 (RFC 2104) of a user id under the archive's salt; both are hexadecimal."""
    return hmac.digest(bytes.fromhex(salt), user_id.encode(), "sha256").hex()


def requests_erasure(record: Record) -> bool:
    """Whether an event requests an erasure."""
    event = record.event
    return isinstance(event, System) and event.kind == "erase" and event.user_id is not None


class LateEventFilter:
    """Finds events of erased users that arrive after the erasure was requested.

    Args:
        salt: The archive's key for digests, hexadecimal.
        requested: By digest of the users concerned: when the last erasure was requested.
    """

    def __init__(self, salt: str, requested: Mapping[str, str]) -> None:
        self._salt = salt
        self._requested = dict(requested)

    def __bool__(self) -> bool:
        return bool(self._requested)

    def is_late(self, record: Record) -> bool:
        """Decide whether an event is discarded because its user was erased after it was received."""
        event = record.event
        if not isinstance(event, Served | Feedback) or event.user_id is None:
            return False
        requested_at = self._requested.get(digest_of(self._salt, event.user_id))
        return requested_at is not None and falls_under(event.received_at, requested_at)

    def redact(self, record: Record, line: bytes) -> tuple[Record, bytes, ErasureRequest]:
        """Replace the user id in an erase event with its digest.

        Returns:
            Both as they are archived, and the request to erase the user.
        """
        fields = orjson.loads(line)
        digest = digest_of(self._salt, fields["user_id"])
        request = ErasureRequest(fields["event_id"], fields["user_id"], digest, fields["received_at"])
        fields["user_id"] = f"{DIGEST_MARK}{digest}"
        redacted = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        event = record.event
        if isinstance(event, System):
            record = record._replace(event=replace(event, user_id=fields["user_id"]))
        return record, redacted, request


def user_digest(root: Path, user_id: str) -> str:
    """Compute the digest of a user in the receipts of an archive.

    Args:
        user_id: The id; with pseudonyms, the pseudonym.
    """
    rows = query_catalogue(root, "SELECT value FROM settings WHERE name = 'salt'", since=2)
    if not rows:
        raise ArchiveError(f"The archive in {root} has no catalogue yet.")
    return digest_of(rows[0][0], user_id)


def read_receipts(root: Path) -> list[ErasureReceipt]:
    """Read every receipt of an archive, the oldest first."""
    rows = query_catalogue(
        root,
        "SELECT erase_id, user_digest, requested_at, done_at, events, files, models FROM erasures"
        " ORDER BY requested_at, erase_id",
        since=2,
    )
    return [ErasureReceipt(*row) for row in rows]
