"""Pseudonyms: the user id that telemetry keeps, made from the caller's with a key that telemetry never writes down.

Invariant: under one key the same user id always gives the same pseudonym, on every replica and after every restart,
and without the key neither can be told from the other. Without a key a user id is its own pseudonym.

HMAC-SHA-256 (RFC 2104), cut to 128 bits: among a billion users two share a pseudonym with a chance of 10^-21.
"""

import hashlib
from pathlib import Path
from typing import Final, overload

from telemetry.secret_file import read_key

_PREFIX: Final = "p-"
_HEX_DIGITS: Final = 32
# RFC 2104, section 2: the block size of SHA-256, and what its inner and outer keys are mixed with.
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class Pseudonymiser:
    """Turns user ids into what telemetry may know of them.

    Args:
        key: The secret, or None to leave ids as they are.
    """

    __slots__ = ("_inner", "_outer", "active")

    def __init__(self, key: bytes | None = None) -> None:
        self.active: Final = key is not None
        # Half of HMAC's work depends on the key alone, and is done here: `hmac.digest` takes twice as long per id.
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
        """Read the key.

        Args:
            path: A file whose bytes, all of them, are the key; None for no key.

        Raises:
            KeyFileError: It cannot be read, others than its owner may read it, or it is too short or too long.
        """
        return cls(None if path is None else read_key(path, "pseudonym key"))

    @overload
    def pseudonym(self, user_id: str) -> str: ...

    @overload
    def pseudonym(self, user_id: None) -> None: ...

    @overload
    def pseudonym(self, user_id: str | None) -> str | None: ...

    def pseudonym(self, user_id: str | None) -> str | None:
        """Return the pseudonym of a user; None, nobody, stays None.

        Args:
            user_id: The caller's id.

        Returns:
            ``p-`` and 32 hexadecimal digits, or `user_id` itself where there is no key.
        """
        if user_id is None or not self.active:
            return user_id
        inner, outer = self._inner.copy(), self._outer.copy()
        # No id with a lone surrogate is ever recorded; one that an operator types must not end in a traceback.
        inner.update(user_id.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return _PREFIX + outer.hexdigest()[:_HEX_DIGITS]
