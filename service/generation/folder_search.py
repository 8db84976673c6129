"""Finds the folders of generations below a directory: complete ones, and those that were begun."""

import os
from collections.abc import Iterator
from pathlib import Path

from service.errors import RunError
from service.generation.output_folder import FROZEN, MANIFEST, PROGRESS, SUFFIX


def folders_below(root: Path) -> Iterator[Path]:
    """Yield a directory itself and those below it that hold lists, sorted; links to directories are not followed.

    Raises:
        RunError: A directory cannot be read.
    """
    try:
        for path, directories, files in os.walk(root, onerror=_raise):
            is_begun = PROGRESS in files or FROZEN in directories
            if is_begun or (MANIFEST in files and any(shards_among(files))):
                yield Path(path)
                directories.clear()
            directories[:] = sorted(name for name in directories if not name.startswith("."))
    except OSError as error:
        raise RunError(f"{error.filename or root} cannot be searched for lists: {error.strerror}.") from None


def shards_among(names: list[str]) -> Iterator[str]:
    """Yield the names of files that are shards."""
    return (name for name in names if name.startswith("shard-") and name.endswith(SUFFIX))


def _raise(error: OSError) -> None:
    # What was removed meanwhile holds no lists.
    if not isinstance(error, FileNotFoundError):
        raise error
