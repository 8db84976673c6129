"""Finds the folders of generations below a directory: complete ones, and those that were begun."""

import os
from collections.abc import Iterator
from pathlib import Path

from service.errors import RunError
from service.generation.files.output_folder import FROZEN, MANIFEST, PROGRESS, STAGED, SUFFIX


def folders_below(root: Path) -> Iterator[Path]:
    """Yield a directory itself and those below it that hold lists, sorted; links to directories are not followed.

    Raises:
        RunError: Directories cannot be read; the others were yielded.
    """
    errors: list[OSError] = []
    for path, directories, files in os.walk(root, onerror=errors.append):
        is_begun = PROGRESS in files or FROZEN in directories
        if is_begun or (MANIFEST in files and any(shards_among(files))):
            yield Path(path)
            directories.clear()
        directories[:] = sorted(name for name in directories if not name.startswith("."))
    # What was removed meanwhile holds no lists.
    reasons = [
        f"{error.filename or root} cannot be searched for lists: {error.strerror}."
        for error in errors
        if not isinstance(error, FileNotFoundError)
    ]
    if reasons:
        raise RunError(" ".join(reasons))


def staged_among(names: list[str]) -> Iterator[str]:
    """Yield the names of shards that are being written, or were when their process was killed."""
    return (name for name in names if STAGED.fullmatch(name) and name.startswith(".shard-"))


def final_name(name: str) -> str | None:
    """Return the name that a shard gets when it is written; None if this is none that is being written."""
    return name[1:].rsplit(".", 2)[0] if any(staged_among([name])) else None


def shards_among(names: list[str]) -> Iterator[str]:
    """Yield the names of files that are shards."""
    return (name for name in names if name.startswith("shard-") and name.endswith(SUFFIX))
