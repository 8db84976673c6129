"""The keys of an installation by id (pure).

Invariant: the time of a look-up reveals nothing about a secret. The id in a key, which is not secret, finds the record;
the digests are compared in constant time, also if the id is unknown.
"""

import hmac
from collections.abc import Iterable
from typing import Final

from service.security.api_key import KEY_LENGTH, ApiKey, digest_of

_NO_DIGEST: Final = bytes(32)


class Keyring:
    """Keys by id, expired and revoked ones included; immutable."""

    __slots__ = ("_by_id",)

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._by_id = {key.id: key for key in keys}

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<Keyring of {len(self)}>"

    def keys(self) -> list[ApiKey]:
        """Return every key, in the order of the file."""
        return list(self._by_id.values())

    def count_valid(self, now_s: float) -> int:
        """Count the keys that are valid at a time in seconds since 1970."""
        return sum(now_s < key.ends_s for key in self._by_id.values())

    def find(self, text: str) -> ApiKey | None:
        """Return the key with this text, valid or not; None for any other text."""
        # A header may have 8 KiB, which would take long to hash.
        if len(text) != KEY_LENGTH:
            return None
        key = self._by_id.get(text[3:11])
        if hmac.compare_digest(digest_of(text), _NO_DIGEST if key is None else key.digest):
            return key
        return None
