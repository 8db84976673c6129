"""The seal of a watermark: how a replica tells that the archive itself said how far it got.

Invariant: a watermark is believed only with a seal that needs the installation's key to make. Redis never sees the
key. A client that can write there can remove a watermark or bring an older one back, and both only delay what a replica
may forget: an archive never gets less far than it once said.

HMAC-SHA-256 (RFC 2104), cut to 128 bits as its section 5 allows, over the producer and the place.
"""

import hashlib
import hmac
import os
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


class Watermark(NamedTuple):
    """What Redis says of a watermark: the place if it is believed, else why it is not; neither if there is none."""

    place: Position | None
    doubt: str | None = None


class Seal:
    """Makes and checks seals.

    Args:
        key: The installation's.
        origin: Reads the key again, should it have been replaced.

    Attributes:
        name: Tells keys apart without giving anything away.
    """

    def __init__(self, key: bytes = b"", origin: Callable[[], bytes] | None = None) -> None:
        self._key = key
        self._origin = origin
        self.name: Final = hashlib.sha256(b"recollect watermark key\0" + key).hexdigest()[:_NAME_DIGITS]

    def __repr__(self) -> str:
        return f"<Seal {self.name}>"

    def sealed(self, producer: str, place: Position) -> dict[str, str]:
        """Return the fields of a watermark, by name."""
        return dict(zip(FIELDS, (str(place.epoch), str(place.seq), self._mac(producer, place), self.name), strict=True))

    def read(
        self, producer: str, epoch: bytes | None, seq: bytes | None, mac: bytes | None, key: bytes | None
    ) -> Watermark:
        """Check the fields of a watermark.

        Args:
            producer: Whose.
            epoch: As Redis has it, like the others; None where there is none.
            seq: The last number that is said to be archived.
            mac: The seal.
            key: The name of the key that it is said to be made with.

        Returns:
            The watermark, or why it is not believed.
        """
        if epoch is None and seq is None:
            return Watermark(None)
        if mac is None or key is None:
            return Watermark(None, "it has no seal: the archive's consumer did not write it, or is of an older version")
        if not self.knows(key):
            return Watermark(
                None,
                f"it is sealed with the key {key[:16]!r} and ours is {self.name}: copy the consumer's key file here",
            )
        try:
            place = Position(int(epoch or b""), int(seq or b""))
        except ValueError:
            return Watermark(None, "it is no place")
        if min(place) < 0 or not place.in_range:
            return Watermark(None, "it is no place")
        if not hmac.compare_digest(mac, self._mac(producer, place).encode()):
            return Watermark(None, f"its seal is not that of {place}: it was forged")
        return Watermark(place)

    def knows(self, key: bytes | None) -> bool:
        """Whether a watermark says that it was sealed with our key, or with none at all."""
        return key is None or key == self.name.encode()

    def renewed(self) -> "Seal":
        """Return the seal of the key as it is now; reads a file. If it cannot be read, ours goes on."""
        if self._origin is None:
            return self
        try:
            return Seal(self._origin(), self._origin)
        except KeyFileError:
            return self

    def _mac(self, producer: str, place: Position) -> str:
        said = f"recollect watermark 1\0{producer}\0{place}".encode()
        return hmac.digest(self._key, said, "sha256").hex()[:_MAC_DIGITS]


def load_or_create_key(archive: Path) -> bytes:
    """Read the key that lies in an archive, or make it; its consumers share it like the archive itself.

    Args:
        archive: Its directory; whichever part of the installation comes first makes the file in it.

    Returns:
        The key.

    Raises:
        KeyFileError: It cannot be read or made, is open to others, or is too short.
    """
    path = archive / KEY_FILE
    if not path.exists():
        _make(path)
    return read_key(path, "watermark key")


def _make(path: Path) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, os.urandom(_KEY_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            # Whole or not at all, and never in the place of one that another process has made meanwhile.
            os.link(aside, path)
        except FileExistsError:
            return
        except OSError:
            # A file system without hard links.
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"the watermark key file {path} cannot be made: {error.strerror}") from None
