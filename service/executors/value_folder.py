"""The folder of an executor's values on this machine, which a loss of power does not leave behind for good.

Invariant: the executor holds the lock of `.lock` in its folder for as long as it lives. So a folder with a free lock is
of a process that has ended, and the next executor removes it.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "executor-"
_LOCK: Final = ".lock"


@contextmanager
def value_folder(parent: Path) -> Iterator[Path]:
    """Make a folder, and remove it at the end; those of processes that were killed are removed first.

    Args:
        parent: Where the folders of all executors of an installation are; made if it is not there.

    Raises:
        OSError: It cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # One at a time: a folder is there for a moment before its lock is held.
    with (parent / _LOCK).open("ab") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        _remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        own = (folder / _LOCK).open("ab")
        fcntl.flock(own, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        own.close()


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*/"):
        try:
            with (folder / _LOCK).open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, or its workers have just removed it, or it is another user's
            continue
