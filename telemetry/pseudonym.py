"""Pseudonyms: keyed digests that replace user ids in telemetry, which never stores the key.

Invariant: under one key a user id has one pseudonym, on every replica and after every restart. Without the key neither
can be derived from the other. If no key is set, a user id is its own pseudonym.

HMAC-SHA-256 (RFC 2104), cut to 128 bits: among a billion users two share a pseudonym with a probability of 10^-21.
"""

import hashlib
from pathlib import Path
from string import hexdigits
from typing import Final, overload

from telemetry.secret_file import read_key

_PREFIX: Final = "p-"
_HEX_DIGITS: Final = 32
# RFC 2104, section 2: the block size of SHA-256, and the masks of the inner and outer key.
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


def is_pseudonym(user_id: str) -> bool:
    """Whether an id has the form of a pseudonym."""
    digits = user_id.removeprefix(_PREFIX)
    return digits != user_id and len(digits) == _HEX_DIGITS and set(digits) <= set(hexdigits)


class Pseudonymiser:
    """Makes pseudonyms of user ids with a key; without one it leaves ids as they are."""

    __slots__ = ("_inner", "_outer", "active")

    def __init__(self, key: bytes | None = None) -> None:
        self.active: Final = key is not None
        # The half of HMAC that depends on the key alone is done once: `hmac.digest` takes twice as long per id.
        short = key or b""
        if len(short) > _BLOCK_BYTES:
            short = hashlib.sha256(short).digest()
        block = short.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def __repr__(self) -> str:
        return f"<Pseudonymiser active={self.active}>"

    @classmethod
    def from_file(cls, path: Path | None) -> "Pseudonymiser":
        """Return a pseudonymiser with the key in a file, or without a key if there is no file.

        Raises:
            KeyFileError: The file cannot be read, is open to other users, or is too short or too long.
        """
        return cls(None if path is None else read_key(path, "pseudonym key"))

    @overload
    def pseudonym(self, user_id: str) -> str: ...

    @overload
    def pseudonym(self, user_id: None) -> None: ...

    @overload
    def pseudonym(self, user_id: str | None) -> str | None: ...

    def pseudonym(self, user_id: str | None) -> str | None:
        """Return ``p-`` and 32 hexadecimal digits, or the user id itself without a key; None for None."""
        if user_id is None or not self.active:
            return user_id
        inner, outer = self._inner.copy(), self._outer.copy()
        # An id with a lone surrogate is never recorded, but an operator may type one.
        inner.update(user_id.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return _PREFIX + outer.hexdigest()[:_HEX_DIGITS]
