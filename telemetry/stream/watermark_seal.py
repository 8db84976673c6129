"""The seal of a watermark, which proves to a replica that the archive's consumer wrote it.

Invariant: a watermark is accepted only with a seal, which only the installation's key can make. Redis never sees the
key. A client that can write in Redis can remove a watermark or restore an older one; both only delay a release, because
an archive never falls behind a watermark it wrote.

HMAC-SHA-256 (RFC 2104), cut to 128 bits as its section 5 allows, over the producer and the position.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from telemetry.batch import Position
from telemetry.errors import KeyFileError
from telemetry.secret_file import read_key
from telemetry.wal.disk import sync_directory

FIELDS: Final = ("epoch", "seq", "mac", "key")
KEY_FILE: Final = "watermark.key"
_KEY_BYTES: Final = 32
_MAC_DIGITS: Final = 32
_NAME_DIGITS: Final = 8


class VerifiedWatermark(NamedTuple):
    """The position of a valid watermark, or why it is not valid; neither if there is none."""

    position: Position | None
    doubt: str | None = None


class Seal:
    """Makes and verifies seals with a key; `load` reads it again, in case it was replaced.

    Attributes:
        name: Distinguishes keys without revealing them.
    """

    def __init__(self, key: bytes = b"", load: Callable[[], bytes] | None = None) -> None:
        self._key = key
        self._load = load
        self.name: Final = hashlib.sha256(b"recollect watermark key\0" + key).hexdigest()[:_NAME_DIGITS]

    def __repr__(self) -> str:
        return f"<Seal {self.name}>"

    def sealed_fields(self, producer: str, position: Position) -> dict[str, str]:
        """Return the fields of a watermark, by name."""
        values = (str(position.epoch), str(position.seq), self._mac(producer, position), self.name)
        return dict(zip(FIELDS, values, strict=True))

    def verify(
        self, producer: str, epoch: bytes | None, seq: bytes | None, mac: bytes | None, key: bytes | None
    ) -> VerifiedWatermark:
        """Verify the fields of a watermark as Redis has them; None for a missing one."""
        if epoch is None and seq is None:
            return VerifiedWatermark(None)
        if mac is None or key is None:
            return VerifiedWatermark(
                None, "it has no seal: the archive's consumer did not write it, or is of an older version"
            )
        if not self.has_key_of(key):
            return VerifiedWatermark(
                None,
                f"it is sealed with the key {key[:16]!r} and not with {self.name}: copy the consumer's key file here",
            )
        try:
            position = Position(int(epoch or b""), int(seq or b""))
        except ValueError:
            return VerifiedWatermark(None, "it is no position")
        if min(position) < 0 or not position.in_range:
            return VerifiedWatermark(None, "it is no position")
        if not hmac.compare_digest(mac, self._mac(producer, position).encode()):
            return VerifiedWatermark(None, f"its seal is not that of {position}: it was forged")
        return VerifiedWatermark(position)

    def has_key_of(self, key: bytes | None) -> bool:
        """Whether a watermark names this seal's key, or none."""
        return key is None or key == self.name.encode()

    def reloaded(self) -> "Seal":
        """Return the seal of the current key, read from its file; this seal if the file is unreadable."""
        if self._load is None:
            return self
        try:
            return Seal(self._load(), self._load)
        except KeyFileError:
            return self

    def _mac(self, producer: str, position: Position) -> str:
        message = f"recollect watermark 1\0{producer}\0{position}".encode()
        return hmac.digest(self._key, message, "sha256").hex()[:_MAC_DIGITS]


def load_or_create_key(archive: Path) -> bytes:
    """Return the key in an archive's directory, which its consumers and replicas share; create it if there is none.

    Raises:
        KeyFileError: It cannot be read or created, is open to other users, or is too short.
    """
    path = archive / KEY_FILE
    if not path.exists():
        _create(path)
    return read_key(path, "watermark key")


def _create(path: Path) -> None:
    # Not by the process: in containers that share an archive, every process may be number 1.
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, os.urandom(_KEY_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            # Whole or not at all, and never over the key that another process created meanwhile.
            os.link(staged, path)
        except FileExistsError:
            return
        except OSError:
            # A file system without hard links.
            staged.rename(path)
        finally:
            staged.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"The watermark key file {path} cannot be made: {error.strerror}.") from None
