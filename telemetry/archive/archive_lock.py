"""File locks that let one process at a time do one kind of work on an archive; the kernel frees them at its end."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

COMPACTION_LOCK: Final = "compact.lock"


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Lock a file, made if it is missing, without waiting.

    Yields:
        Whether the lock is held; False while another process holds it.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            locked = False
        else:
            locked = True
        yield locked
    finally:
        os.close(descriptor)
