"""A key in a file: all bytes of the file are the key.

Only the owner of the file may have access. One exception: a file of root's may be readable by a group, because that is
how platforms hand a secret to a process of another user; PostgreSQL has the same rule for the key of its certificate.
"""

import os
import stat
from pathlib import Path
from typing import Final

from telemetry.errors import KeyFileError

KEY_LEAST_BYTES: Final = 32
_NOT_OF_OWN: Final = 0o077
_NOT_OF_ROOT_S: Final = 0o037
_KEY_MOST_BYTES: Final = 4096


def read_key(path: Path, name: str) -> bytes:
    """Return the key in a file; messages call it `name`.

    Raises:
        KeyFileError: The file cannot be read, is open to other users, or is too short or too long.
    """
    try:
        # Non-blocking: a pipe in its place must not block a start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise KeyFileError(f"The {name} file {path} cannot be read: {reason}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"The {name} file {path} is not a regular file.")
        mode = stat.S_IMODE(status.st_mode)
        if mode & (_NOT_OF_ROOT_S if status.st_uid == 0 and os.geteuid() != 0 else _NOT_OF_OWN):
            raise KeyFileError(
                f"The {name} file {path} has mode {mode:04o}. Only its owner may have access: chmod 600."
            )
        if not KEY_LEAST_BYTES <= status.st_size <= _KEY_MOST_BYTES:
            raise KeyFileError(
                f"The {name} file {path} has {status.st_size} bytes. A key has {KEY_LEAST_BYTES} to {_KEY_MOST_BYTES}."
            )
        return os.read(descriptor, status.st_size)
    finally:
        os.close(descriptor)
