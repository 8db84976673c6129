"""Pseudonyms: the user id that telemetry keeps, made from the caller's with a key that telemetry never writes down.

Invariant: under one key the same user id always gives the same pseudonym, on every replica and after every restart,
and without the key neither can be told from the other. Without a key a user id is its own pseudonym.

HMAC-SHA-256 (RFC 2104), cut to 128 bits: among a billion users two share a pseudonym with a chance of 10^-21.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Final, overload

from telemetry.errors import KeyFileError

KEY_LEAST_BYTES: Final = 32
_KEY_MOST_BYTES: Final = 4096
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
        return cls(None if path is None else _read_key(path))

    @overload
    def of(self, user_id: str) -> str: ...

    @overload
    def of(self, user_id: None) -> None: ...

    @overload
    def of(self, user_id: str | None) -> str | None: ...

    def of(self, user_id: str | None) -> str | None:
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


def _read_key(path: Path) -> bytes:
    try:
        # Not blocking: a pipe in its place must not hang a start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise KeyFileError(f"the pseudonym key file {path} cannot be read: {reason}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"the pseudonym key file {path} is not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise KeyFileError(
                f"the pseudonym key file {path} has mode {mode:04o}; nobody but its owner may have access: chmod 600"
            )
        if not KEY_LEAST_BYTES <= status.st_size <= _KEY_MOST_BYTES:
            raise KeyFileError(
                f"the pseudonym key file {path} has {status.st_size} bytes; "
                f"a key has {KEY_LEAST_BYTES} to {_KEY_MOST_BYTES}"
            )
        return os.read(descriptor, status.st_size)
    finally:
        os.close(descriptor)
