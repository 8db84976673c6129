"""Fingerprints of feedback and item changes, which show whether two events with one id are duplicates.

Invariant: two events have the same fingerprint exactly if user and content are the same; of an item change the item
takes the place of the user, and no user's fingerprint is equal to an item's. Fields that a replica adds
(times, marks, numbers) do not count. Without the archive's key a fingerprint reveals nothing: it is a keyed BLAKE2b
(RFC 7693, section 2.9), eight bytes for the user and eight for the content.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from telemetry.events import Feedback, ItemChange

_HALF_BYTES: Final = 8
_CONTENT: Final = ("type", "item_id", "value", "recommendation_id", "position", "client_time")
_RECORD: Final = ("kind", "title", "attributes", "hidden", "available_from", "available_until")
# The fingerprint of an unreadable event of an older version: it matches any event with its id.
UNKNOWN: Final = b""


class Fingerprints:
    """Makes fingerprints with the archive's key."""

    def __init__(self, key: bytes = b"") -> None:
        # The key is a block of its own, hashed once.
        self._user = hashlib.blake2b(key=key, digest_size=_HALF_BYTES, person=b"user")
        self._content = hashlib.blake2b(key=key, digest_size=_HALF_BYTES, person=b"content")
        self._item = hashlib.blake2b(key=key, digest_size=_HALF_BYTES, person=b"item")

    def of_event(self, event: Feedback | ItemChange) -> bytes:
        """Return an event's fingerprint."""
        if isinstance(event, ItemChange):
            item, rest = self._item.copy(), self._content.copy()
            item.update(event.item_id.encode())
            rest.update(orjson.dumps([getattr(event, name) for name in _RECORD], option=orjson.OPT_SORT_KEYS))
            return item.digest() + rest.digest()
        return self._of(
            event.user_id,
            [event.type, event.item_id, event.value, event.recommendation_id, event.position, event.client_time],
        )

    def of_fields(self, fields: Mapping[str, Any]) -> bytes:
        """Return the fingerprint of the fields of an archived line."""
        return self._of(fields["user_id"], [fields[name] for name in _CONTENT])

    def _of(self, user_id: str, content: list[Any]) -> bytes:
        if content[2] is not None:
            # 4 and 4.0 are the same rating.
            content[2] = float(content[2])
        user, rest = self._user.copy(), self._content.copy()
        user.update(user_id.encode())
        rest.update(orjson.dumps(content))
        return user.digest() + rest.digest()


def same_user(one: bytes, other: bytes) -> bool:
    """Whether two fingerprints are of the same user's events."""
    return one[:_HALF_BYTES] == other[:_HALF_BYTES]
