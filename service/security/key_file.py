"""The key file, `security/keys.json` under RECOLLECT_HOME: read as a whole, replaced as a whole.

Invariants: a reader finds a whole file, the old or the new one; writers take turns under `security/keys.lock`; no
secret is ever in it. The lock stays where keys were made once, so that a lost key file is told from one that never was.
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import orjson

from service.errors import KeysRefused
from service.security.api_key import ApiKey
from service.security.file_owner import make_directory, open_private
from telemetry.wal.disk import sync_directory

FILE: Final = "keys.json"
LOCK: Final = "keys.lock"
FORMAT: Final = 1
LIMIT_BYTES: Final = 4 << 20
LIMIT_KEYS: Final = 10_000

Signature = tuple[int, int, int]


class KeyFile:
    """The key file of one installation.

    Args:
        directory: The folder `security` of its home directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / FILE

    def signature(self) -> Signature | None:
        """Return what changes whenever the file is replaced; None if there is no file.

        Raises:
            OSError: It cannot be looked at.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read(self) -> list[ApiKey] | None:
        """Return every key of the file; None if no key was ever made here.

        Raises:
            KeysRefused: The file cannot be used, or is gone; says why.
        """
        try:
            raw = self._bytes()
        except FileNotFoundError:
            if (self.directory / LOCK).exists():
                raise KeysRefused(
                    f"{self.path} is missing, but keys were made here: put it back, make a key with"
                    f" `recollect keys create`, or remove {self.directory / LOCK} to serve without keys"
                ) from None
            return None
        except OSError as error:
            raise KeysRefused(f"the key file {self.path} cannot be read: {error.strerror or error}") from None
        try:
            return _parsed(raw)
        except ValueError as error:
            raise KeysRefused(f"the key file {self.path} is damaged: {error}") from None

    @contextmanager
    def changing(self) -> Iterator[list[ApiKey]]:
        """Be the only writer: the list given, as the caller leaves it, becomes the file.

        Raises:
            KeysRefused: The file cannot be used or written.
        """
        try:
            make_directory(self.directory)
            descriptor = open_private(self.directory / LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            keys = self._present()
            yield keys
            try:
                self._replace(keys)
            except OSError as error:
                raise self._unwritable(error) from None
        finally:
            os.close(descriptor)

    def _present(self) -> list[ApiKey]:
        if self.signature() is None:
            return []
        return self.read() or []

    def _replace(self, keys: list[ApiKey]) -> None:
        if len(keys) > LIMIT_KEYS:
            raise KeysRefused(f"{self.path} holds {LIMIT_KEYS:,} keys at most; remove revoked ones from it")
        content = orjson.dumps(
            {"format": FORMAT, "keys": [key.record() for key in keys]},
            option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
        )
        aside = self.directory / f".{FILE}.{secrets.token_hex(4)}.tmp"
        try:
            descriptor = open_private(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a path would not take the mode
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            aside.replace(self.path)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise
        sync_directory(self.directory)

    def _bytes(self) -> bytes:
        # Not blocking: a pipe in its place must not hang a start.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - as above
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KeysRefused(f"the key file {self.path} is not a regular file")
            if status.st_mode & 0o022:
                mode = stat.S_IMODE(status.st_mode)
                raise KeysRefused(f"the key file {self.path} has mode {mode:04o}, so others may change it: chmod 600")
            raw = file.read(LIMIT_BYTES + 1)
        if len(raw) > LIMIT_BYTES:
            raise KeysRefused(f"the key file {self.path} is over {LIMIT_BYTES >> 20} MiB")
        return raw

    def _unwritable(self, error: OSError) -> KeysRefused:
        return KeysRefused(f"the key file {self.path} cannot be written: {error.strerror or error}")


def _parsed(raw: bytes) -> list[ApiKey]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("keys"), list):
        raise ValueError(f"it is not of format {FORMAT}")
    keys = [ApiKey.from_record(record) for record in value["keys"]]
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("two keys have one id")
    return keys
