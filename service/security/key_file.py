"""The key file, `security/keys.json` under RECOLLECT_HOME.

Invariants: a reader finds a whole file, the old or the new one; writers take turns under `security/keys.lock`; the file
holds no secret. The lock file stays, so that a lost key file is distinguished from one that never existed.
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

from service.config import Config
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
    """The key file in the folder `security` of a home directory, or elsewhere under a name of its own."""

    def __init__(self, directory: Path, name: str = FILE) -> None:
        self.directory = directory
        self.path = directory / name

    @classmethod
    def of(cls, config: Config) -> "KeyFile":
        """Return the key file that the settings name."""
        path = config.keys_file
        return cls(config.security_dir) if path is None else cls(path.parent, path.name)

    def signature(self) -> Signature | None:
        """Return a value that changes whenever the file is replaced; None if there is no file.

        Raises:
            OSError: The file cannot be accessed.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read(self) -> list[ApiKey] | None:
        """Return every key of the file; None if no key was ever made here.

        Raises:
            KeysRefused: The file cannot be used, or is missing.
        """
        try:
            raw = self._read_bytes()
        except FileNotFoundError:
            if (self.directory / LOCK).exists():
                raise KeysRefused(
                    f"{self.path} is missing, but keys were made here: restore it, make a key with"
                    f" `recollect keys create`, or remove {self.directory / LOCK} to serve without keys."
                ) from None
            return None
        except OSError as error:
            raise KeysRefused(f"The key file {self.path} cannot be read: {error.strerror or error}.") from None
        try:
            return _parse(raw)
        except ValueError as error:
            raise KeysRefused(f"The key file {self.path} is damaged: {error}.") from None

    @contextmanager
    def edit(self) -> Iterator[list[ApiKey]]:
        """Yield the keys as a list for the only writer; the edited list is written on exit.

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
            raise KeysRefused(f"{self.path} holds {LIMIT_KEYS:,} keys at most; remove revoked ones from it.")
        content = orjson.dumps(
            {"format": FORMAT, "keys": [key.record() for key in keys]},
            option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
        )
        temporary = self.directory / f".{self.path.name}.{secrets.token_hex(4)}.tmp"
        try:
            descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - only a descriptor has the mode
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(self.path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(self.directory)

    def _read_bytes(self) -> bytes:
        # Non-blocking, because a pipe in its place must not hang the start.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - as above
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KeysRefused(f"The key file {self.path} is not a regular file.")
            if status.st_mode & 0o022:
                mode = stat.S_IMODE(status.st_mode)
                raise KeysRefused(f"The key file {self.path} has mode {mode:04o}, so others may change it: chmod 600.")
            raw = file.read(LIMIT_BYTES + 1)
        if len(raw) > LIMIT_BYTES:
            raise KeysRefused(f"The key file {self.path} is over {LIMIT_BYTES >> 20} MiB.")
        return raw

    def _unwritable(self, error: OSError) -> KeysRefused:
        return KeysRefused(f"The key file {self.path} cannot be written: {error.strerror or error}.")


def _parse(raw: bytes) -> list[ApiKey]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("keys"), list):
        raise ValueError(f"it is not of format {FORMAT}")
    keys = [ApiKey.from_record(record) for record in value["keys"]]
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("two keys have the same id")
    return keys
