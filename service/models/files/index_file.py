"""The file of an item index, `item_index.faiss` beside the arrays of a version.

Invariant: the library opens a file after its length and its sha256 are compared with the manifest.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from service.errors import ModelRefused
from service.models.files import published_files
from service.models.index.item_index import KIND, ItemIndex
from service.models.index.library import MISSING, faiss

_log = structlog.get_logger("recollect.models")

FILE: Final = "item_index.faiss"
_PIECE_BYTES: Final = 1 << 20


def described(description: dict[str, Any] | None, directory: Path, index: ItemIndex | None) -> dict[str, Any] | None:
    """Write the index of a version, if there is one, and return the manifest's `index`.

    Args:
        description: The manifest's `index`, but for the file's checksum; None in a copy of an older model.
        directory: Where the version is written.
        index: The index.
    """
    if description is None or description["kind"] == "exact":
        return description
    if index is None:
        # A copy of a version whose index was not read.
        return {"kind": "exact", "why": MISSING}
    path = directory / FILE
    index.write(path)
    descriptor = published_files.open_regular(path)
    try:
        os.fsync(descriptor)
        return {
            **description,
            "sha256": _sha256(descriptor, lambda: None),
            "bytes": os.fstat(descriptor).st_size,
        }
    finally:
        os.close(descriptor)


def read(
    directory: Path, described: Any, n_items: int, n_factors: int, checkpoint: Callable[[], None]
) -> ItemIndex | None:
    """Check and map the index of a version; None if it has none, or the library is not installed.

    Args:
        directory: That of the version.
        described: The manifest's `index`; None in older models.
        n_items: The number of items of the model.
        n_factors: The number of factors of the model.
        checkpoint: Called between pieces of the file; an exception from it ends the reading.

    Raises:
        ModelRefused: The file differs from the manifest, or is no index of these items.
    """
    version = directory.name
    if described is None:
        return None
    if not isinstance(described, dict) or described.get("kind") not in {"exact", KIND}:
        raise ModelRefused(f"{version}: the manifest does not describe the item index.")
    if described["kind"] == "exact":
        return None
    library = faiss()
    if library is None:
        _log.warning("the item index is not used: lists are exact and take longer", model=version, reason=MISSING)
        return None
    n_probe = described.get("nprobe")
    if type(n_probe) is not int or n_probe < 1:
        raise ModelRefused(f"{version}: the manifest has no valid nprobe of the item index.")
    _check(directory / FILE, described, checkpoint)
    try:
        index = library.read_index(str(directory / FILE), library.IO_FLAG_MMAP | library.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise ModelRefused(f"{version}: the item index cannot be read: {str(error).splitlines()[0]}.") from None
    if not isinstance(index, library.IndexIVFFlat):
        raise ModelRefused(f"{version}: the item index is {type(index).__name__} and not IndexIVFFlat.")
    if index.ntotal != n_items or index.d not in {n_factors, n_factors + 1}:
        raise ModelRefused(
            f"{version}: the item index has {index.ntotal} items of {index.d} dimensions, and the model has {n_items} "
            f"items of {n_factors} factors."
        )
    lists = library.downcast_InvertedLists(index.invlists)
    if hasattr(lists, "prefetch_nthread"):
        # Its threads, one a list, take longer than a search.
        lists.prefetch_nthread = 0
    return ItemIndex(index, n_probe, directory / FILE)


def _check(path: Path, described: dict[str, Any], checkpoint: Callable[[], None]) -> None:
    version = path.parent.name
    try:
        descriptor = published_files.open_regular(path)
    except OSError as error:
        raise ModelRefused(f"{version}: {FILE} cannot be opened: {error.strerror}.") from error
    try:
        size_bytes = os.fstat(descriptor).st_size
        # The length first: a long file then costs no time.
        if size_bytes != described.get("bytes"):
            raise ModelRefused(
                f"{version}: {FILE} has {size_bytes} bytes, and the manifest says {described.get('bytes')}."
            )
        if _sha256(descriptor, checkpoint) != described.get("sha256"):
            raise ModelRefused(f"{version}: {FILE} does not have the sha256 of the manifest.")
    except OSError as error:
        raise ModelRefused(f"{version}: {FILE} cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)


def _sha256(descriptor: int, checkpoint: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    while piece := os.read(descriptor, _PIECE_BYTES):
        checkpoint()
        digest.update(piece)
    return digest.hexdigest()
